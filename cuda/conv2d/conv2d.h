// Two-dimensional cross-correlation of images [N, H, W, C] with kernels, as matrix products whose left operand is never
// written down (implicit GEMM). All sums are float32.
#pragma once
#include <cstddef>

#include "gemm/epilogue.h"
#include "simt/launch.h"

namespace refl::cuda {

struct ConvShape {
  int images, height, width, channels;  // of x
  int outHeight, outWidth, outputs;     // of y
  int kernelHeight, kernelWidth;
  int strideY, strideX;
  int top, left;      // zero pixels above and to the left; below and to the right they follow from the output's size
  bool tf32 = false;  // float operands may be rounded to tf32, for tensor cores
};

// Weights come as [O, C, kh, kw]. The kernels read them with the summed channels innermost:
//   for the output         [O, kh, kw, C]
//   for the input gradient [C, kh, kw, O]
// both written by these, which overlap nothing.
template <class T>
cudaError_t packConvWeight(const ConvShape& shape, const T* weight, T* packed, cudaStream_t stream);
template <class T>
cudaError_t packConvWeightForGradInput(const ConvShape& shape, const T* weight, T* packed, cudaStream_t stream);

/** Bytes of scratch for partial sums, of each of the three. They depend on the shape alone. */
template <class T>
size_t conv2dScratch(const ConvShape& shape);
template <class T>
size_t conv2dGradInputScratch(const ConvShape& shape);
template <class T>
size_t conv2dGradWeightScratch(const ConvShape& shape);

// Where an epilogue follows, its rows are the result's pixels, in order.

/** y [N, OH, OW, O] from x, a weight packed by packConvWeight and a bias [O] or null. T: float (true float32, unless
 * tf32 is asked for), bf16, f16. */
template <class T>
cudaError_t conv2dForward(const ConvShape& shape, const T* x, const T* packed, const T* bias, T* y, std::byte* scratch,
                          cudaStream_t stream, const Epilogue& epilogue = {});
/** dx [N, H, W, C] from dy and a weight packed by packConvWeightForGradInput. */
template <class T>
cudaError_t conv2dGradInput(const ConvShape& shape, const T* dy, const T* packed, T* dx, std::byte* scratch,
                            cudaStream_t stream, const Epilogue& epilogue = {});
/** dw [O, C, kh, kw] from x and dy, rounded to T, and written as float where `toFloat` says so. */
template <class T>
cudaError_t conv2dGradWeight(const ConvShape& shape, const T* x, const T* dy, T* dw, std::byte* scratch,
                             cudaStream_t stream, bool toFloat = false);

}  // namespace refl::cuda
