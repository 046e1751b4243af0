// What a test says to the emulator, and what it hears from it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "simt/launch.h"

namespace simt::emu {

struct Options {
  /** 0: warps and their lanes in order. Otherwise the seed of random warp priorities, drawn anew at each barrier of the
   *  block, of the lane that starts in a warp, and of the order of blocks. */
  uint64_t schedule = 0;
  /** Host threads that share a launch's blocks; the sanitised builds always use one. */
  int threads = 1;
  /** Shared memory a block may have: 99 KiB, so that an sm_80 kernel also runs on 8.6 and 8.9; Hopper's has 227 KiB. */
  size_t sharedLimit = 99 * 1024;
};
Options& options();

/** The first fault since the last call, with kernel, block, thread and place; empty if there was none. */
std::string takeFault();

/** Runs a grid to its end on the calling thread and its helpers. */
cudaError_t execute(const Launch& at, const Task& task);
/** Gives launches to a runtime that has streams, which clones the task's arguments and calls execute in its own time.
 */
using Submit = cudaError_t (*)(const Launch& at, const Task& task);
void onSubmit(Submit function);

/** Tells of memory that kernels reach: the race detector watches it, and copies by the emulator check it. */
void registerGlobal(const void* at, size_t bytes);
void unregisterGlobal(const void* at);

}  // namespace simt::emu
