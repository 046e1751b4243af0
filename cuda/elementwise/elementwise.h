// Operators that compute each element from the elements at the same place. T: float, bf16 or f16; computed in float32.
// Base addresses are multiples of 16 bytes. Results may lie in the memory of an operand of the same size.
#pragma once
#include "elementwise/layout.h"
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

// The operators and their parameters; elementwise.cc says what binds to which.
template <int K>
struct Operator {
  static constexpr int kInputs = K;
};
struct Neg : Operator<1> {};
struct Sqrt : Operator<1> {};
struct Rsqrt : Operator<1> {};
struct Reciprocal : Operator<1> {};
struct Square : Operator<1> {};
struct Abs : Operator<1> {};
struct Sign : Operator<1> {};
struct Exp : Operator<1> {};
struct Log : Operator<1> {};
struct Sin : Operator<1> {};
struct Cos : Operator<1> {};
struct Tanh : Operator<1> {};
struct Sigmoid : Operator<1> {};
struct Power : Operator<1> {
  float exponent;
};
struct Affine : Operator<1> {
  float scale, shift;
};
struct Clamp : Operator<1> {
  float low, high;
};
struct Relu : Operator<1> {};
struct LeakyRelu : Operator<1> {
  float slope;
};
struct ClampGrad : Operator<2> {
  float low, high;
};
struct LeakyReluGrad : Operator<2> {
  float slope;
};
struct Add : Operator<2> {};
struct Sub : Operator<2> {};
struct Mul : Operator<2> {};
struct Div : Operator<2> {};
struct Maximum : Operator<2> {};
struct Minimum : Operator<2> {};
struct Greater : Operator<2> {};
struct GreaterEqual : Operator<2> {};
struct Equal : Operator<2> {};
struct Where : Operator<3> {};

/** Operands of one type. One that `repeats` has one element, which stands for all. */
template <class T, int K>
struct Inputs {
  const T* at[K];
  bool repeats[K];
};

/** y[i] = op(in[0][i], ...) for i < count. */
template <class Op, class T>
cudaError_t map(const Op& op, const Inputs<T, Op::kInputs>& in, T* y, unsigned count, cudaStream_t stream);

/** The same with operands broadcast as `layout` says: for Add to Where. */
template <class Op, class T>
cudaError_t mapBroadcast(const Op& op, const Layout<Op::kInputs>& layout, const T* const (&in)[Op::kInputs], T* y,
                         cudaStream_t stream);

/** y[i] = x[i] in another type, of float, bf16, f16, int32_t and uint8_t. What becomes whole is truncated towards zero
 * and limited to its type's range, NaN gives 0. */
template <class From, class To>
cudaError_t castElements(const From* x, To* y, unsigned count, cudaStream_t stream);

/** Repeats 4 bytes over `bytes` bytes at y. */
cudaError_t fill(uint32_t pattern, void* y, size_t bytes, cudaStream_t stream);

}  // namespace refl::cuda
