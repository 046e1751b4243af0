#pragma once
// Tensors of a node's groups as one long run of elements, which threads split evenly: a thousand small biases cost as
// little as one matrix.
#include <vector>

#include "cpu/support.h"

namespace refl::REFL_ISA {

constexpr int64_t kGrain = 16384;

// Where each group of tensors begins in the run of all their elements; the last entry is the total.
inline std::vector<int64_t> startsOf(const NodeSpec& node) {
  std::vector<int64_t> starts{0};
  for (size_t i = node.op->inputs.size(); i < node.inputs.size(); i += node.op->group.size()) {
    starts.push_back(starts.back() + node.inputs[i].size());
  }
  return starts;
}

// Calls fn(group, begin, end) with the pieces of groups that lie in [begin, end) of the run.
template <class Fn>
void pieces(const std::vector<int64_t>& starts, int64_t begin, int64_t end, Fn&& fn) {
  auto next = std::upper_bound(starts.begin(), starts.end(), begin);
  for (int64_t at = begin; at < end; ++next) {
    const int64_t stop = std::min(end, *next);
    const auto group = next - starts.begin() - 1;
    if (at < stop) fn(static_cast<size_t>(group), at - starts[group], stop - starts[group]);
    at = stop;
  }
}

// Reduces all groups of a node without fixed inputs: fn(tensors of the group, begin, end) gives a double for each piece
// of a fixed chunk of the run, the chunks are added up in order, and finish(total) is the output.
template <class Fn, class Finish>
Bound reduceAll(const NodeSpec& node, Fn fn, Finish finish) {
  const std::vector<int64_t> starts = startsOf(node);
  const int64_t chunks = (starts.back() + kGrain - 1) / kGrain;
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [=, size = node.op->group.size()](const Args& args) {
      auto* partial = reinterpret_cast<double*>(args.scratch);
      parallelFor(chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; c++) {
          double total = 0;
          const int64_t stop = std::min((c + 1) * kGrain, starts.back());
          pieces(starts, c * kGrain, stop,
                 [&](size_t group, int64_t from, int64_t to) { total += fn(tag, args.in + group * size, from, to); });
          partial[c] = total;
        }
      });
      double total = 0;
      for (int64_t c = 0; c < chunks; c++) total += partial[c];
      *args.out[0].as<T>() = static_cast<T>(finish(total));
    };
    return {run, static_cast<size_t>(chunks) * sizeof(double)};
  });
}

}  // namespace refl::REFL_ISA
