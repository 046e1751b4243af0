#pragma once
// What elementwise operators compute of one element, for their own kernels and as steps of a chain. Parameters are the
// operators' attributes, in the order of ops.json.
#include <cmath>

#include "cpu/vecmath.h"

namespace refl::REFL_ISA {

#define REFL_UNARY(Name, expression)      \
  struct Name {                           \
    template <class T>                    \
    REFL_INLINE T operator()(T x) const { \
      return expression;                  \
    }                                     \
  };
#define REFL_BINARY(Name, expression)          \
  struct Name {                                \
    template <class T>                         \
    REFL_INLINE T operator()(T a, T b) const { \
      return expression;                       \
    }                                          \
  };

REFL_BINARY(Add, a + b)
REFL_BINARY(Sub, a - b)
REFL_BINARY(Mul, a* b)
REFL_BINARY(Div, a / b)
// NaN wins on either side.
REFL_BINARY(Maximum, a >= b || a != a ? a : b)
REFL_BINARY(Minimum, a <= b || a != a ? a : b)
REFL_BINARY(Greater, static_cast<T>(a > b))
REFL_BINARY(GreaterEqual, static_cast<T>(a >= b))
REFL_BINARY(Equal, static_cast<T>(a == b))

REFL_UNARY(Neg, -x)
REFL_UNARY(Exp, vec::exp(x))
REFL_UNARY(Log, vec::log(x))
REFL_UNARY(Sqrt, std::sqrt(x))
REFL_UNARY(Rsqrt, 1 / std::sqrt(x))
REFL_UNARY(Reciprocal, 1 / x)
REFL_UNARY(Square, x* x)
REFL_UNARY(Abs, std::fabs(x))
REFL_UNARY(Sign, x > 0 ? T(1) : x < 0 ? T(-1) : x)
REFL_UNARY(Tanh, vec::tanh(x))
REFL_UNARY(Sigmoid, vec::sigmoid(x))
// Not LeakyRelu with a slope of 0, because 0 * -infinity is not 0.
REFL_UNARY(Relu, x < 0 ? T(0) : x)

#undef REFL_UNARY
#undef REFL_BINARY

struct Affine {
  double scale, shift;
  template <class T>
  REFL_INLINE T operator()(T x) const {
    return static_cast<T>(scale) * x + static_cast<T>(shift);
  }
};

struct Clamp {
  double min, max;
  template <class T>
  REFL_INLINE T operator()(T x) const {
    const T low = static_cast<T>(min), high = static_cast<T>(max);
    return x < low ? low : x > high ? high : x;
  }
};

struct ClampGrad {
  double min, max;
  template <class T>
  REFL_INLINE T operator()(T x, T dy) const {
    return x >= static_cast<T>(min) && x <= static_cast<T>(max) ? dy : T(0);
  }
};

struct LeakyRelu {
  double slope;
  template <class T>
  REFL_INLINE T operator()(T x) const {
    return x > 0 ? x : static_cast<T>(slope) * x;
  }
};

struct LeakyReluGrad {
  double slope;
  template <class T>
  REFL_INLINE T operator()(T x, T dy) const {
    return x > 0 ? dy : static_cast<T>(slope) * dy;
  }
};

}  // namespace refl::REFL_ISA
