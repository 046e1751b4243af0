#pragma once
// The backend without numerics: every operator binds and runs, none computes. Programs are verified and laid out as on
// any device, so shapes, derivatives and plans of networks that are too large to compute here can still be tried.
#include "exec/program.h"

namespace refl {

const Kernels& nullKernels();

}  // namespace refl
