// Operators that move elements, and pad's adjoint, which adds them up. gather.h has the more common form.
#pragma once
#include "layout/gather.h"
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** Elements (r, c) of a matrix whose rows are contiguous in x and whose columns are contiguous in y, at r + c *
 * columnStride of x and r * rowStride + c of y; one matrix for every place along the outer axes. */
struct Transpose {
  unsigned rows, rowStride;
  unsigned columns, columnStride;
  int outer;
  unsigned extent[kMostGatherAxes], from[kMostGatherAxes], to[kMostGatherAxes];  // of the outer axes, innermost first
};

/** E: an unsigned integer of 1, 2 or 4 bytes. */
template <class E>
cudaError_t transposeTiles(const Transpose& t, const E* x, E* y, cudaStream_t stream);

/** y[r, column + c] = x[r, c] for rows of `width` bytes in x and `stride` bytes in y; 16-byte aligned addresses. */
cudaError_t copyRows(const void* x, unsigned rows, size_t width, void* y, size_t stride, size_t column,
                     cudaStream_t stream);

enum class PadMode { zero, reflect, replicate };

/** One axis of what was padded: `extent` elements, to which pad added `before` and `after`. */
struct PadAxis {
  int extent, before, after;
  unsigned stride;  // of the padded tensor
};
struct PadShape {
  PadMode mode;
  int axes;
  PadAxis axis[kMostGatherAxes];  // innermost first
};

/** dx = the sums of dy over the places that pad filled from each element. T: float, bf16 or f16, summed in float32. */
template <class T>
cudaError_t padGrad(const PadShape& shape, const T* dy, T* dx, unsigned count, cudaStream_t stream);

}  // namespace refl::cuda
