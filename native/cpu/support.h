#pragma once
// Shared by the CPU kernels. Every file under native/cpu is compiled once for each instruction set in sources.json,
// inside namespace REFL_ISA, so that the widest set the machine has is chosen at run time.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <string>

#include "exec/kernel.h"
#include "exec/status.h"

namespace refl::REFL_ISA {

// Splits [0, n) into one contiguous range a thread (fewer if ranges would fall under `grain`) and calls
// fn(begin, end). The split depends on n and the thread count only, so results are the same at every run.
template <class Fn>
void parallelFor(int64_t n, int64_t grain, Fn&& fn) {
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(1, grain));
  const int threads = static_cast<int>(std::min<int64_t>(omp_get_max_threads(), most));
  if (threads <= 1) {
    if (n > 0) fn(int64_t{0}, n);
    return;
  }
  std::exception_ptr thrown;  // what fn throws must not leave the parallel region by itself
  // Teams are all of one size, in which some have nothing to do. For a smaller team the OpenMP runtime would end the
  // threads it does not need and start them again for the next; and where it cannot start one, it ends the process.
#pragma omp parallel
  {
    const int64_t id = omp_get_thread_num(), count = std::min(threads, omp_get_num_threads());
    const int64_t begin = n * id / count, end = n * (id + 1) / count;
    try {
      if (id < count && begin < end) fn(begin, end);
    } catch (...) {
#pragma omp critical(refl_thrown)
      thrown = std::current_exception();
    }
  }
  if (thrown) std::rethrow_exception(thrown);
}

// Calls fn with a value of the C++ type of a floating dtype: `return onFloat(t, [&](auto tag) { using T =
// decltype(tag); ... })`.
template <class Fn>
auto onFloat(DType dtype, const NodeSpec& node, Fn&& fn) {
  if (dtype == DType::f32) return fn(float{});
  if (dtype == DType::f64) return fn(double{});
  throw Error("ERR_DTYPE", node.layer + ": " + node.op->name + " has no kernel for this dtype");
}

}  // namespace refl::REFL_ISA
