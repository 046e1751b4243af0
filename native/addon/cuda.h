#pragma once
// The CUDA library, which is opened at run time: the addon itself needs neither a CUDA toolkit nor a driver.
#include <string>

#include "exec/cuda_abi.h"

namespace refl {

// Opens the library at `path` and returns its table, which stays valid: the library is never closed. Throws ERR_DEVICE
// where the file is no library, is cut short, lacks the entry or was built for another version of this addon.
const ReflCuda& openCudaLibrary(const std::string& path);

}  // namespace refl
