// Activations and their gradients. T: float, bf16 or f16; computed in float32.
#pragma once
#include "elementwise/elementwise.h"

namespace refl::cuda {

// Operators of elementwise.h's map<Op<T>, T>; a gradient's operands are x and dy. In the 16-bit types they use the
// approximate exponential and reciprocal, whose errors are far below the types' rounding.
template <class T>
struct Silu : Operator<1> {};
template <class T>
struct SiluGrad : Operator<2> {};
/** x Phi(x), Phi being the normal distribution function. */
template <class T>
struct Gelu : Operator<1> {};
template <class T>
struct GeluGrad : Operator<2> {};
/** x sigmoid(1.702 x). */
template <class T>
struct QuickGelu : Operator<1> {};
template <class T>
struct QuickGeluGrad : Operator<2> {};

/** y [rows, width] = a gelu(b) from x = [a, b] [rows, 2 width], 2 rows width < 2^31. */
template <class T>
cudaError_t geglu(const T* x, T* y, unsigned rows, unsigned width, cudaStream_t stream);

/** dx [rows, 2 width] from x and dy [rows, width]. */
template <class T>
cudaError_t gegluGrad(const T* x, const T* dy, T* dx, unsigned rows, unsigned width, cudaStream_t stream);

}  // namespace refl::cuda
