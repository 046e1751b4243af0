#pragma once
// A device: which kernels it binds, and the thread they run on.
#include <atomic>
#include <memory>
#include <string>

#include "exec/executor.h"
#include "exec/program.h"

namespace refl {

struct Device {
  // `kind` is "cpu", "null" or, with the path of a CUDA library, its device "cuda:N"; `threads` is how many workers a
  // kernel of the CPU may use; `tf32`: whether products of float32 on a CUDA device may round their operands to tf32.
  // Throws ERR_DEVICE.
  Device(const std::string& kind, int threads, std::string library, bool tf32);

  // Makes the backend. A job of the executor, and the first: opening a GPU takes a while. Throws ERR_DEVICE.
  void open();

  const std::string kind;
  const int threads;
  const std::string library;
  const bool tf32;
  std::shared_ptr<Backend> backend;  // for others than the executor only once `isOpen`
  std::atomic<bool> isOpen{false};
  std::atomic<bool> closing{
      false};         // jobs that have not begun are refused, a running program stops at its next segment
  Executor executor;  // the last member: it joins its thread while the others still exist
};

// The instruction set whose kernels this machine runs ("v4", "v3", "base"), or "" when it lacks the least one built.
std::string cpuIsa();

}  // namespace refl
