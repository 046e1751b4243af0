// Launching: simt::launch<kernel<float>>({grid, block, sharedBytes, stream}, arguments...). It returns an error and
// never waits; under g++ it runs the grid before it returns, unless a stand-in runtime has taken over streams.
#pragma once
#include "simt/shared.h"
#ifndef __CUDACC__
#include <tuple>
#include <utility>

struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719 };
#endif

namespace simt {

struct Launch {
  dim3 grid, block;
  size_t shared = 0;
  cudaStream_t stream = nullptr;
};

#ifdef __CUDACC__
template <class Kernel>
struct Launcher;
template <class... P>
struct Launcher<void (*)(P...)> {
  static cudaError_t run(const void* kernel, const Launch& at, P... arguments) {
    // Above 48 KiB a kernel must be told (a call that a stream capture permits).
    if (at.shared > 48 * 1024) {
      const cudaError_t told =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(at.shared));
      if (told != cudaSuccess) return told;
    }
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., nullptr};
    return cudaLaunchKernel(kernel, at.grid, at.block, pointers, at.shared, at.stream);
  }
};
template <auto kKernel, class... A>
cudaError_t launch(const Launch& at, A&&... arguments) {
  return Launcher<decltype(kKernel)>::run(reinterpret_cast<const void*>(kKernel), at, arguments...);
}
#else
namespace emu {
/** Runs `body(arguments)` as every thread of the grid. `arguments` is copied where the launch must outlive the call. */
struct Task {
  const char* name;
  void (*body)(const void* arguments);
  const void* arguments;
  const void* (*clone)(const void* arguments);
  void (*release)(const void* arguments);
};
cudaError_t submit(const Launch& at, const Task& task);

template <class Function>
struct Arguments;
template <class... P>
struct Arguments<void (*)(P...)> {
  using type = std::tuple<std::remove_cv_t<P>...>;
};
/** The kernel's name is the template argument in this function's own. */
template <auto kKernel>
const char* nameOf() {
  return __PRETTY_FUNCTION__;
}
}  // namespace emu

template <auto kKernel, class... A>
cudaError_t launch(const Launch& at, A&&... arguments) {
  using Values = typename emu::Arguments<decltype(kKernel)>::type;
  const Values values(std::forward<A>(arguments)...);
  emu::Task task;
  task.name = emu::nameOf<kKernel>();
  task.body = [](const void* values) { std::apply(kKernel, *static_cast<const Values*>(values)); };
  task.arguments = &values;
  task.clone = [](const void* values) -> const void* { return new Values(*static_cast<const Values*>(values)); };
  task.release = [](const void* values) { delete static_cast<const Values*>(values); };
  return emu::submit(at, task);
}
#endif

}  // namespace simt
