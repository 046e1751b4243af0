#pragma once
// Kernels that compute each output element from the input elements at the same place, with broadcasting.
#include <array>
#include <vector>

#include "cpu/support.h"

namespace refl::REFL_ISA {

// Elements a thread should at least have: for functions that memory limits, and for those of ten or more instructions.
constexpr int64_t kCheap = 16384;
constexpr int64_t kCostly = 2048;

// y = fn(x). Threads split the elements evenly; reads and writes each element once.
template <class Fn>
Bound mapUnary(const NodeSpec& node, int64_t grain, Fn fn) {
  const int64_t n = node.outputs[0].size();
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [n, grain, fn](const Args& args) {
      parallelFor(n, grain, [&](int64_t begin, int64_t end) {
        const T* x = args.in[0].as<T>();
        T* y = args.out[0].as<T>();
        const Fn f = fn;
#pragma omp simd
        for (int64_t i = begin; i < end; i++) y[i] = f(x[i]);
      });
    };
    return {run, 0};
  });
}

// How K operands walk along a row-major output: the output's axes, merged where every operand is contiguous or
// repeated over both. Along the last merged axis an operand steps by 1 or stays; over the others it has a stride.
template <size_t K>
class Walk {
 public:
  Walk(const Shape& out, const std::array<const Operand*, K>& operands) : total_(sizeOf(out)) {
    std::array<int64_t, K> size;
    size.fill(1);
    for (size_t back = 1; back <= out.size(); back++) {
      const int64_t extent = out[out.size() - back];
      if (extent == 1) continue;
      Axis axis{extent, {}};
      for (size_t k = 0; k < K; k++) {
        const Shape& shape = operands[k]->shape;
        const bool repeats = back > shape.size() || shape[shape.size() - back] == 1;
        axis.stride[k] = repeats ? 0 : size[k];
        if (!repeats) size[k] *= extent;
      }
      if (axes_.empty() || !merge(axes_.back(), axis)) axes_.push_back(axis);
    }
    if (axes_.empty()) axes_.push_back({1, {}});
  }

  int64_t total() const { return total_; }

  // Whether operand k advances along a row.
  bool steps(size_t k) const { return axes_[0].stride[k] != 0; }

  // Calls fn(position in the output, length, offsets of the operands) for every row, or part of one, in [begin, end).
  template <class Fn>
  void rows(int64_t begin, int64_t end, Fn&& fn) const {
    const int64_t width = axes_[0].extent;
    for (int64_t i = begin; i < end;) {
      const int64_t column = i % width, length = std::min(width - column, end - i);
      std::array<int64_t, K> offset;
      for (size_t k = 0; k < K; k++) offset[k] = column * axes_[0].stride[k];
      int64_t rest = i / width;
      for (size_t a = 1; a < axes_.size(); a++) {
        const int64_t at = a + 1 < axes_.size() ? rest % axes_[a].extent : rest;
        rest /= axes_[a].extent;
        for (size_t k = 0; k < K; k++) offset[k] += at * axes_[a].stride[k];
      }
      fn(i, length, offset);
      i += length;
    }
  }

 private:
  struct Axis {
    int64_t extent;
    std::array<int64_t, K> stride;
  };

  static bool merge(Axis& inner, const Axis& outer) {
    for (size_t k = 0; k < K; k++) {
      if (outer.stride[k] != inner.stride[k] * inner.extent) return false;
    }
    inner.extent *= outer.extent;
    return true;
  }

  int64_t total_;
  std::vector<Axis> axes_;  // innermost first
};

// y = fn(a, b), broadcasting. Threads split the output evenly; inside a row either operand is a run or one value, so
// equal shapes, scalars, a vector over the last axis and [N, 1, 1, C] all run as plain vector loops.
template <class Fn>
Bound mapBinary(const NodeSpec& node, int64_t grain, Fn fn) {
  const Walk<2> walk(node.outputs[0].shape, {&node.inputs[0], &node.inputs[1]});
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [walk, grain, fn](const Args& args) {
      parallelFor(walk.total(), grain, [&](int64_t begin, int64_t end) {
        const Fn f = fn;
        const bool runA = walk.steps(0), runB = walk.steps(1);
        walk.rows(begin, end, [&](int64_t at, int64_t n, const std::array<int64_t, 2>& offset) {
          const T* a = args.in[0].as<T>() + offset[0];
          const T* b = args.in[1].as<T>() + offset[1];
          T* y = args.out[0].as<T>() + at;
          if (runA && runB) {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) y[i] = f(a[i], b[i]);
          } else if (runA) {
            const T one = *b;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) y[i] = f(a[i], one);
          } else {
            const T one = *a;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) y[i] = f(one, b[i]);
          }
        });
      });
    };
    return {run, 0};
  });
}

}  // namespace refl::REFL_ISA
