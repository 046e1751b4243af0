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
  // kernel of the CPU may use. Throws ERR_DEVICE.
  Device(const std::string& kind, int threads, std::string library);

  // Makes the backend. A job of the executor, and the first: opening a GPU takes a while. Throws ERR_DEVICE.
  void open();

  const std::string kind;
  const int threads;
  const std::string library;
  std::shared_ptr<Backend> backend;  // for others than the executor only once `isOpen`
  std::atomic<bool> isOpen{false};
  std::atomic<bool> closing{
      false};         // jobs that have not begun are refused, a running program stops at its next segment
  Executor executor;  // the last member: it joins its thread while the others still exist
};

// The instruction set whose kernels this machine runs ("v4", "v3", "base"), or "" when it lacks the least one built.
std::string cpuIsa();

}  // namespace refl
