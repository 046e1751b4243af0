#pragma once
// What activations and their gradients by x compute of one element, for their own kernels and as steps.
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {

// Scale of the sigmoid that quickGelu stands in for the normal distribution function.
constexpr double kQuick = 1.702;

// d(x sigmoid(kx)) / dx = s + k x s (1 - s).
template <class T>
REFL_INLINE T gatedSlope(T x, T k) {
  const T s = vec::sigmoid(k * x);
  return s + k * x * s * (1 - s);
}

template <class T>
REFL_INLINE T geluSlope(T x) {
  const auto n = vec::normal(x);
  return n.cdf + x * n.pdf;
}

#define REFL_ACTIVATION(Name, slope, expression) \
  struct Name {                                  \
    template <class T>                           \
    REFL_INLINE T operator()(T x) const {        \
      return expression;                         \
    }                                            \
  };                                             \
  struct Name##Grad {                            \
    template <class T>                           \
    REFL_INLINE T operator()(T x, T dy) const {  \
      return dy * slope;                         \
    }                                            \
  };
REFL_ACTIVATION(Silu, gatedSlope(x, T(1)), x* vec::sigmoid(x))
REFL_ACTIVATION(Gelu, geluSlope(x), x* vec::normal(x).cdf)
REFL_ACTIVATION(QuickGelu, gatedSlope(x, static_cast<T>(kQuick)), x* vec::sigmoid(static_cast<T>(kQuick) * x))
#undef REFL_ACTIVATION

}  // namespace refl::REFL_ISA
