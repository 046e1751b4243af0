#pragma once
// What a kernel family implements for the CUDA backend: for every row of ops.json a function that binds one node of a
// program. Binding reads shapes and attributes once and chooses an implementation; running it only launches kernels. It
// neither allocates nor waits, reads what varies per run from device memory, and launches the same kernels with the
// same addresses at every run, so that a segment can be captured as a graph.
#include <climits>
#include <functional>
#include <string>
#include <vector>

#include "exec/node.h"
#include "exec/status.h"
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

// Device addresses of one run. An optional input that was left out has null data.
struct Args {
  const Tensor* in;
  const Tensor* out;
  const std::byte* const* packed;  // the copies of `Bound::packed`, in its order
  std::byte* scratch;              // `Bound::scratch` bytes, 256-byte aligned, contents undefined
  cudaStream_t stream;
};

// A copy of a frozen input in another layout, made when its values are known and kept with the buffer: all nodes that
// ask for the same key share it, so the key says everything that decides the layout.
struct PackedInput {
  size_t input;
  std::string key;
  size_t bytes;
  std::function<cudaError_t(const void* plain, std::byte* copy, cudaStream_t)> make;
};

struct Bound {
  std::function<cudaError_t(const Args&)> run;
  size_t scratch = 0;
  std::vector<PackedInput> packed = {};
};

using Bind = Bound (*)(const NodeSpec&);

/** What a node without results does. */
inline Bound nothing() {
  return {[](const Args&) { return cudaSuccess; }};
}

[[noreturn]] inline void refuse(const NodeSpec& node, const char* code, const std::string& why) {
  throw Error(code, (node.layer.empty() ? "" : node.layer + ": ") + node.op->name + " " + why);
}

// Calls fn with a value of the C++ type of a floating dtype of CUDA: `return onFloat(t, node, [&](auto tag) { using T =
// decltype(tag); ... })`. Throws ERR_DTYPE on another: float64 is the CPU's, as the oracle of tests.
template <class Fn>
auto onFloat(DType dtype, const NodeSpec& node, Fn&& fn) {
  if (dtype == DType::f32) return fn(float{});
  if (dtype == DType::bf16) return fn(simt::bf16{});
  if (dtype == DType::f16) return fn(simt::f16{});
  refuse(node, "ERR_DTYPE", "has no CUDA kernel for " + describe(dtype, {}).substr(0, describe(dtype, {}).find('[')));
}

// A count as the 32 bits that kernels index by. Throws ERR_SHAPE from 2^31 on.
inline int narrow(const NodeSpec& node, int64_t count) {
  if (count > INT_MAX)
    refuse(node, "ERR_SHAPE",
           "has " + std::to_string(count) + " elements, CUDA kernels index 2^31; use a smaller image or batch, or cpu");
  return static_cast<int>(count);
}

}  // namespace refl::cuda
