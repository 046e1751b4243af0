// Resizing of NHWC images and its adjoint: weighted sums of pixels, by weights that are the product of one axis's and
// the other's.
#pragma once
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

enum class Filter { nearest, bilinear, bicubic };

/** One axis of an image, from `in` pixels to `out`. Each result is made of up to `taps` pixels in a row. */
struct ResizeAxis {
  int in, out;
  int results, taps;
};

struct ResizeShape {
  Filter filter;
  bool antialias, adjoint;
  unsigned images, channels;
  ResizeAxis y, x;
};

/** `height` and `width` [in, out] of the resize; its adjoint takes images of the size `out` to the size `in`. In all
 * under 2^31 pixels on each side. */
ResizeShape makeResize(Filter filter, bool antialias, bool adjoint, unsigned images, const int (&height)[2],
                       const int (&width)[2], unsigned channels);

/** Bytes of `resize`'s scratch. */
size_t resizeScratch(const ResizeShape& shape);

/** T: float, bf16 or f16, summed in float32. */
template <class T>
cudaError_t resize(const ResizeShape& shape, const T* x, T* y, void* scratch, cudaStream_t stream);

}  // namespace refl::cuda
