// y[i] = x[where(i)]: what slice, pad, roll, broadcastTo, nearest resize and most transpositions are. Each axis of the
// result reads one axis of x, whole, from a start on, around its ends, or at another scale.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "simt/launch.h"

namespace refl::cuda {

/** Which index of x's axis, of `count` elements, a place outside of it reads. */
enum class Edge {
  inside,  // there is none
  zero,    // none: the result is 0
  wrap,    // at most one round below 0
  mirror,  // without the border itself
  clamp,
  scale  // every place p of the result's axis reads floor(p * count / extent)
};

struct GatherAxis {
  unsigned extent;  // of the result
  unsigned stride;  // of x
  int start;        // added to a place
  unsigned count;   // of x
  Edge edge;

  /** Reads x's axis as it is. */
  bool whole() const { return edge == Edge::inside && start == 0 && extent == count; }
  /** Scaling places by a factor keeps them right. */
  bool linear() const { return edge == Edge::inside || edge == Edge::zero || edge == Edge::wrap; }
};

constexpr int kMostGatherAxes = 8;

struct Gather {
  int axes;
  GatherAxis axis[kMostGatherAxes];  // innermost first
  int bytes;                         // of a unit, which moves as one: extents and strides count units

  unsigned count() const {
    unsigned n = 1;
    for (int k = 0; k < axes; ++k) n *= axis[k].extent;
    return n;
  }
};

/** Merges axes (outermost first, of elements of `bytes`, in all under 2^31) that lie one in the other, and then makes
 * units of elements, up to 16 bytes wide. False where more than kMostGatherAxes remain. */
inline bool makeGather(const std::vector<GatherAxis>& axes, int bytes, Gather& gather) {
  gather = {};
  gather.bytes = bytes;
  for (size_t k = axes.size(); k-- > 0;) {
    const GatherAxis& outer = axes[k];
    if (outer.extent == 1 && outer.start == 0 && outer.edge == Edge::inside) continue;
    GatherAxis* inner = gather.axes ? &gather.axis[gather.axes - 1] : nullptr;
    if (inner && inner->whole() && outer.linear() && outer.stride == inner->stride * inner->extent) {
      const unsigned block = inner->extent;
      *inner = {outer.extent * block, inner->stride, outer.start * static_cast<int>(block), outer.count * block,
                outer.edge};
      continue;
    }
    if (gather.axes == kMostGatherAxes) return false;
    gather.axis[gather.axes++] = outer;
  }
  if (gather.axes == 0) gather.axis[gather.axes++] = {1, 1, 0, 1, Edge::inside};

  GatherAxis& row = gather.axis[0];
  const auto divides = [&](unsigned units) {
    unsigned all = row.extent | static_cast<unsigned>(row.start) | (row.edge == Edge::inside ? 0 : row.count);
    for (int k = 1; k < gather.axes; ++k) all |= gather.axis[k].stride;
    return all % units == 0;
  };
  unsigned units = 1;
  while (row.stride == 1 && row.linear() && gather.bytes < 16 && divides(2 * units)) {
    units *= 2;
    gather.bytes *= 2;
  }
  row.extent /= units;
  row.start /= static_cast<int>(units);
  row.count /= units;
  for (int k = 1; k < gather.axes; ++k) gather.axis[k].stride /= units;
  return true;
}

/** x and y at multiples of 16 bytes. */
cudaError_t gatherElements(const Gather& gather, const void* x, void* y, cudaStream_t stream);

}  // namespace refl::cuda
