#pragma once
// A device: which kernels it binds, and the thread they run on.
#include <atomic>
#include <string>

#include "exec/executor.h"
#include "exec/program.h"

namespace refl {

struct Device {
  // `kind` is "cpu" or "null"; `threads` is how many workers a kernel may use. Throws ERR_DEVICE.
  Device(const std::string& kind, int threads);

  const std::string kind;
  const int threads;
  const Kernels& kernels;
  std::atomic<bool> closing{
      false};         // jobs that have not begun are refused, a running program stops at its next segment
  Executor executor;  // the last member: it joins its thread while the others still exist
};

// The instruction set whose kernels this machine runs ("v4", "v3", "base"), or "" when it lacks the least one built.
std::string cpuIsa();

}  // namespace refl
