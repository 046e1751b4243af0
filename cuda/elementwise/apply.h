// What elementwise operators compute of one element, in float32: for their own kernels (map.h) and as steps of a chain.
#pragma once
#include "elementwise/elementwise.h"
#include "simt/simt.h"

namespace refl::cuda {

#define REFL_APPLY(...) __device__ __forceinline__ float apply(__VA_ARGS__)

REFL_APPLY(const Add&, float a, float b) { return a + b; }
REFL_APPLY(const Sub&, float a, float b) { return a - b; }
REFL_APPLY(const Mul&, float a, float b) { return a * b; }
REFL_APPLY(const Div&, float a, float b) { return a / b; }
// NaN wins on either side; of equal values, zeros of two signs among them, the first.
REFL_APPLY(const Maximum&, float a, float b) { return a >= b || a != a ? a : b; }
REFL_APPLY(const Minimum&, float a, float b) { return a <= b || a != a ? a : b; }
REFL_APPLY(const Greater&, float a, float b) { return a > b ? 1.0f : 0.0f; }
REFL_APPLY(const GreaterEqual&, float a, float b) { return a >= b ? 1.0f : 0.0f; }
REFL_APPLY(const Equal&, float a, float b) { return a == b ? 1.0f : 0.0f; }
// NaN counts as true.
REFL_APPLY(const Where&, float condition, float a, float b) { return condition != 0 ? a : b; }

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

// By CUDA's own functions, which are good to a few units in the last place.
REFL_APPLY(const Exp&, float x) { return expf(x); }
REFL_APPLY(const Log&, float x) { return logf(x); }
REFL_APPLY(const Sin&, float x) { return sinf(x); }
REFL_APPLY(const Cos&, float x) { return cosf(x); }
REFL_APPLY(const Tanh&, float x) { return tanhf(x); }
REFL_APPLY(const Sigmoid&, float x) { return 1.0f / (1.0f + expf(-x)); }
REFL_APPLY(const Power& op, float x) { return powf(x, op.exponent); }

#undef REFL_APPLY

}  // namespace refl::cuda
