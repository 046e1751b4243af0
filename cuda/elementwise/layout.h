// How operands lie along a row-major result when they are broadcast to its shape.
#pragma once
#include <stddef.h>

#include <cstdint>
#include <vector>

namespace refl::cuda {

constexpr int kMostAxes = 8;

/** The result's axes, innermost first, merged where every operand is contiguous or repeated over both. Along axis 0 an
 * operand steps by 1 or stays. */
template <int K>
struct Layout {
  int axes;
  unsigned extent[kMostAxes];
  unsigned stride[K][kMostAxes];
};

/** Fills `layout` for operands of `shapes` that broadcast to `out`, aligned at the end; all sizes under 2^31 and not 0.
 * False where more than kMostAxes axes remain. */
template <int K>
bool broadcast(const std::vector<int64_t>& out, const std::vector<int64_t> (&shapes)[K], Layout<K>& layout) {
  layout = {};
  unsigned size[K], stride[K];
  for (unsigned& s : size) s = 1;
  for (size_t back = 1; back <= out.size(); ++back) {
    const auto extent = static_cast<unsigned>(out[out.size() - back]);
    if (extent == 1) continue;
    const int last = layout.axes - 1;
    bool merges = last >= 0;
    for (int k = 0; k < K; ++k) {
      const std::vector<int64_t>& shape = shapes[k];
      const bool repeats = back > shape.size() || shape[shape.size() - back] == 1;
      stride[k] = repeats ? 0 : size[k];
      if (!repeats) size[k] *= extent;
      merges = merges && stride[k] == layout.stride[k][last] * layout.extent[last];
    }
    if (merges) {
      layout.extent[last] *= extent;
      continue;
    }
    if (layout.axes == kMostAxes) return false;
    layout.extent[layout.axes] = extent;
    for (int k = 0; k < K; ++k) layout.stride[k][layout.axes] = stride[k];
    ++layout.axes;
  }
  if (layout.axes == 0) {
    layout.axes = 1;
    layout.extent[0] = 1;
  }
  return true;
}

}  // namespace refl::cuda
