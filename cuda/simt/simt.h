// The one header of a kernel: the same source is CUDA under nvcc and, under g++, runs in the emulator of test/simt, a
// fiber per thread. docs/simt.md is its manual. Hopper's own instructions are in simt/hopper.h.
#pragma once
#include "simt/async.h"
#include "simt/builtins.h"
#include "simt/launch.h"
#include "simt/mma.h"
#include "simt/shared.h"
#include "simt/types.h"
#include "simt/warp.h"
