#pragma once
// The CUDA binder of every operator that has a kernel.
#include <map>
#include <string>

#include "backend/kernel.h"

namespace refl::cuda {

const std::map<std::string, Bind>& kernels();

}  // namespace refl::cuda
