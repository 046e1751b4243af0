// Operators of one operand with few operations an element, and the gradients of clamp and leakyRelu. The kernels and
// their bytes are map.h's.
#include "elementwise/map.h"

namespace refl::cuda {

#define REFL_APPLY(...) __device__ __forceinline__ float apply(__VA_ARGS__)

REFL_APPLY(const Neg&, float x) { return -x; }
REFL_APPLY(const Sqrt&, float x) { return sqrtf(x); }
REFL_APPLY(const Rsqrt&, float x) { return rsqrtf(x); }
REFL_APPLY(const Reciprocal&, float x) { return 1.0f / x; }
REFL_APPLY(const Square&, float x) { return x * x; }
REFL_APPLY(const Abs&, float x) { return fabsf(x); }
// Zeros and NaN are their own signs.
REFL_APPLY(const Sign&, float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }
REFL_APPLY(const Affine& op, float x) { return fmaf(op.scale, x, op.shift); }
// NaN stays.
REFL_APPLY(const Clamp& op, float x) { return x < op.low ? op.low : x > op.high ? op.high : x; }
REFL_APPLY(const ClampGrad& op, float x, float dy) { return x >= op.low && x <= op.high ? dy : 0.0f; }
// Not LeakyRelu with a slope of 0, because 0 * -infinity is not 0.
REFL_APPLY(const Relu&, float x) { return x < 0 ? 0.0f : x; }
REFL_APPLY(const LeakyRelu& op, float x) { return x > 0 ? x : op.slope * x; }
REFL_APPLY(const LeakyReluGrad& op, float x, float dy) { return x > 0 ? dy : op.slope * dy; }

#define REFL_MAP(Op, T) template cudaError_t map(const Op&, const Inputs<T, Op::kInputs>&, T*, unsigned, cudaStream_t);
#define REFL_EACH_TYPE(Op) REFL_MAP(Op, float) REFL_MAP(Op, simt::bf16) REFL_MAP(Op, simt::f16)
REFL_EACH_TYPE(Neg)
REFL_EACH_TYPE(Sqrt)
REFL_EACH_TYPE(Rsqrt)
REFL_EACH_TYPE(Reciprocal)
REFL_EACH_TYPE(Square)
REFL_EACH_TYPE(Abs)
REFL_EACH_TYPE(Sign)
REFL_EACH_TYPE(Affine)
REFL_EACH_TYPE(Clamp)
REFL_EACH_TYPE(ClampGrad)
REFL_EACH_TYPE(Relu)
REFL_EACH_TYPE(LeakyRelu)
REFL_EACH_TYPE(LeakyReluGrad)

}  // namespace refl::cuda
