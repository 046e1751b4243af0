// Binders of the reduce family. Axes that lie together are reduced as one; those that do not, and what was cut into
// parts, in passes from the innermost outwards, with float32 in between.
#include "reduce/reduce.h"

#include <algorithm>

#include "backend/kernel.h"
#include "elementwise/elementwise.h"

namespace refl::cuda {
namespace {

/** Adjacent axes that are all reduced or all kept, outermost first; axes of 1 are either. */
struct Run {
  int64_t extent;
  bool reduced;
};

std::vector<Run> runsOf(const Shape& shape, const std::vector<int64_t>& axes) {
  std::vector<Run> runs;
  for (size_t k = 0; k < shape.size(); ++k) {
    if (shape[k] == 1) continue;
    const bool reduced = std::find(axes.begin(), axes.end(), static_cast<int64_t>(k)) != axes.end();
    if (!runs.empty() && runs.back().reduced == reduced)
      runs.back().extent *= shape[k];
    else
      runs.push_back({shape[k], reduced});
  }
  return runs;
}

std::vector<Middle> passesOf(const NodeSpec& node) {
  std::vector<Run> runs = runsOf(node.inputs[0].shape, node.integers("axes"));
  std::vector<Middle> passes;
  int64_t inner = 1;
  for (size_t k = runs.size(); k-- > 0;) {
    if (!runs[k].reduced) {
      inner *= runs[k].extent;
      continue;
    }
    int64_t outer = 1;
    for (size_t j = 0; j < k; ++j) outer *= runs[j].extent;
    passes.push_back(
        {static_cast<unsigned>(outer), static_cast<unsigned>(runs[k].extent), static_cast<unsigned>(inner)});
    for (unsigned parts; (parts = reduceParts(passes.back())) > 1;)
      passes.push_back({passes.back().outer, parts, passes.back().inner});
  }
  // Nothing to reduce: every element is its own sum.
  if (passes.empty()) passes.push_back({static_cast<unsigned>(inner), 1, 1});
  return passes;
}

size_t resultsOf(const Middle& pass) { return size_t{pass.outer} * reduceParts(pass) * pass.inner; }

Bound bindReduction(const NodeSpec& node, Reduction op) {
  narrow(node, node.inputs[0].size());
  const auto results = static_cast<size_t>(node.outputs[0].size());
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (results == 0) return nothing();
    if (node.inputs[0].size() == 0)  // the sum of nothing
      return {[bytes = results * sizeof(T)](const Args& a) { return fill(0, a.out[0].data, bytes, a.stream); }};
    const std::vector<Middle> passes = passesOf(node);
    size_t most = 0;
    for (size_t k = 0; k + 1 < passes.size(); ++k) most = std::max(most, (resultsOf(passes[k]) * 4 + 255) / 256 * 256);
    const auto run = [=](const Args& a) {
      // Results between two passes lie at the two ends of the scratch in turn.
      float* between[2] = {reinterpret_cast<float*>(a.scratch), reinterpret_cast<float*>(a.scratch + most)};
      const T* x = a.in[0].as<const T>();
      T* y = a.out[0].as<T>();
      if (passes.size() == 1) return reduce(op, passes[0], x, y, a.stream);
      cudaError_t status = reduce(op, passes[0], x, between[0], a.stream);
      for (size_t k = 1; k < passes.size() && status == cudaSuccess; ++k) {
        const float* from = between[(k + 1) % 2];
        status = k + 1 < passes.size() ? reduce(op, passes[k], from, between[k % 2], a.stream)
                                       : reduce(op, passes[k], from, y, a.stream);
      }
      return status;
    };
    return {run, 2 * most};
  });
}

}  // namespace

Bound bindSum(const NodeSpec& node) { return bindReduction(node, Reduction::sum); }
Bound bindAmax(const NodeSpec& node) { return bindReduction(node, Reduction::max); }

Bound bindArgmax(const NodeSpec& node) {
  const Shape& shape = node.inputs[0].shape;
  const auto axis = node.integer("axis");
  narrow(node, node.inputs[0].size());
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (node.outputs[0].size() == 0) return nothing();
    const auto size = [&](auto from, auto to) { return static_cast<unsigned>(sizeOf(Shape(from, to))); };
    const Middle middle = {size(shape.begin(), shape.begin() + axis), static_cast<unsigned>(shape[axis]),
                           size(shape.begin() + axis + 1, shape.end())};
    return {
        [middle](const Args& a) { return argmax(middle, a.in[0].as<const T>(), a.out[0].as<int32_t>(), a.stream); }};
  });
}

}  // namespace refl::cuda
