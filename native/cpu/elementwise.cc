// Elementwise operators. All are limited by memory (two or three streams of n elements) but for the transcendental
// ones, which vecmath.h keeps under a nanosecond an element; float32 is computed in float32.
#include "cpu/map.h"
#include "cpu/vecmath.h"
#include "exec/half.h"

namespace refl::REFL_ISA {

namespace {

// A float as T. Whole numbers truncate towards zero and saturate, and NaN gives 0, so that every backend agrees.
template <class To, class From>
To convert(From x) {
  if constexpr (std::is_integral_v<To>) {
    using Limits = std::numeric_limits<To>;
    const double v = static_cast<double>(x);
    if (!(v == v)) return 0;
    return static_cast<To>(std::min<double>(std::max<double>(v, Limits::min()), Limits::max()));
  } else {
    return static_cast<To>(x);
  }
}

// Calls fn with a value of the C++ type of any dtype.
template <class Fn>
auto onAny(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::f32:
      return fn(float{});
    case DType::f64:
      return fn(double{});
    case DType::bf16:
      return fn(BFloat16{});
    case DType::f16:
      return fn(Float16{});
    case DType::i32:
      return fn(int32_t{});
    default:
      return fn(uint8_t{});
  }
}

}  // namespace

Bound bindFull(const NodeSpec& node) {
  const int64_t n = node.outputs[0].size();
  const double value = node.number("value");
  return onAny(node.outputs[0].dtype, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const T filler = convert<T>(value);
    const auto run = [n, filler](const Args& args) {
      parallelFor(n, kCheap, [&](int64_t begin, int64_t end) {
        T* y = args.out[0].as<T>();
        std::fill(y + begin, y + end, filler);
      });
    };
    return {run, 0};
  });
}

Bound bindCast(const NodeSpec& node) {
  const int64_t n = node.outputs[0].size();
  return onAny(node.inputs[0].dtype, [&](auto from) {
    return onAny(node.outputs[0].dtype, [&](auto to) -> Bound {
      using From = decltype(from);
      using To = decltype(to);
      const auto run = [n](const Args& args) {
        parallelFor(n, kCheap, [&](int64_t begin, int64_t end) {
          const From* x = args.in[0].as<From>();
          To* y = args.out[0].as<To>();
          for (int64_t i = begin; i < end; i++) y[i] = convert<To>(x[i]);
        });
      };
      return {run, 0};
    });
  });
}

Bound bindAdd(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return a + b; });
}
Bound bindSub(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return a - b; });
}
Bound bindMul(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return a * b; });
}
Bound bindDiv(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return a / b; });
}
// NaN wins on either side.
Bound bindMaximum(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return a >= b || a != a ? a : b; });
}
Bound bindMinimum(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return a <= b || a != a ? a : b; });
}
Bound bindGreater(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return static_cast<decltype(a)>(a > b); });
}
Bound bindGreaterEqual(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return static_cast<decltype(a)>(a >= b); });
}
Bound bindEqual(const NodeSpec& node) {
  return mapBinary(node, kCheap, [](auto a, auto b) { return static_cast<decltype(a)>(a == b); });
}

Bound bindWhere(const NodeSpec& node) {
  const Walk<3> walk(node.outputs[0].shape, {&node.inputs[0], &node.inputs[1], &node.inputs[2]});
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [walk](const Args& args) {
      parallelFor(walk.total(), kCheap, [&](int64_t begin, int64_t end) {
        const int64_t stepC = walk.steps(0), stepA = walk.steps(1), stepB = walk.steps(2);
        walk.rows(begin, end, [&](int64_t at, int64_t n, const std::array<int64_t, 3>& offset) {
          const T* cond = args.in[0].as<T>() + offset[0];
          const T* a = args.in[1].as<T>() + offset[1];
          const T* b = args.in[2].as<T>() + offset[2];
          T* y = args.out[0].as<T>() + at;
          if (stepC + stepA + stepB == 3) {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) y[i] = cond[i] != 0 ? a[i] : b[i];
          } else {
            for (int64_t i = 0; i < n; i++) y[i] = cond[i * stepC] != 0 ? a[i * stepA] : b[i * stepB];
          }
        });
      });
    };
    return {run, 0};
  });
}

Bound bindNeg(const NodeSpec& node) {
  return mapUnary(node, kCheap, [](auto x) { return -x; });
}
Bound bindExp(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::exp(x); });
}
Bound bindLog(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::log(x); });
}
Bound bindSqrt(const NodeSpec& node) {
  return mapUnary(node, kCheap, [](auto x) { return std::sqrt(x); });
}
Bound bindRsqrt(const NodeSpec& node) {
  return mapUnary(node, kCheap, [](auto x) { return 1 / std::sqrt(x); });
}
Bound bindReciprocal(const NodeSpec& node) {
  return mapUnary(node, kCheap, [](auto x) { return 1 / x; });
}
Bound bindSquare(const NodeSpec& node) {
  return mapUnary(node, kCheap, [](auto x) { return x * x; });
}
Bound bindAbs(const NodeSpec& node) {
  return mapUnary(node, kCheap, [](auto x) { return std::fabs(x); });
}
Bound bindSign(const NodeSpec& node) {
  return mapUnary(node, kCheap, [](auto x) {
    using T = decltype(x);
    return x > 0 ? T(1) : x < 0 ? T(-1) : x;
  });
}
Bound bindSin(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::sin(x); });
}
Bound bindCos(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::cos(x); });
}
Bound bindTanh(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::tanh(x); });
}
Bound bindSigmoid(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::sigmoid(x); });
}

Bound bindAffine(const NodeSpec& node) {
  const double scale = node.number("scale"), shift = node.number("shift");
  return mapUnary(node, kCheap, [scale, shift](auto x) {
    using T = decltype(x);
    return static_cast<T>(scale) * x + static_cast<T>(shift);
  });
}

// The C library's power, an element at a time: exact to an ulp where exp(p log x) would lose bits.
Bound bindPower(const NodeSpec& node) {
  const double exponent = node.number("exponent");
  return mapUnary(node, kCostly, [exponent](auto x) { return std::pow(x, static_cast<decltype(x)>(exponent)); });
}

Bound bindClamp(const NodeSpec& node) {
  const double min = node.number("min"), max = node.number("max");
  return mapUnary(node, kCheap, [min, max](auto x) {
    using T = decltype(x);
    const T low = static_cast<T>(min), high = static_cast<T>(max);
    return x < low ? low : x > high ? high : x;
  });
}
Bound bindClampGrad(const NodeSpec& node) {
  const double min = node.number("min"), max = node.number("max");
  return mapBinary(node, kCheap, [min, max](auto x, auto dy) {
    using T = decltype(x);
    return x >= static_cast<T>(min) && x <= static_cast<T>(max) ? dy : T(0);
  });
}

// A slope of 0 has a path of its own because 0 * -infinity is not 0.
Bound bindLeakyRelu(const NodeSpec& node) {
  const double slope = node.number("slope");
  if (slope == 0) return mapUnary(node, kCheap, [](auto x) { return x < 0 ? decltype(x)(0) : x; });
  return mapUnary(node, kCheap, [slope](auto x) { return x > 0 ? x : static_cast<decltype(x)>(slope) * x; });
}
Bound bindLeakyReluGrad(const NodeSpec& node) {
  const double slope = node.number("slope");
  return mapBinary(node, kCheap,
                   [slope](auto x, auto dy) { return x > 0 ? dy : static_cast<decltype(x)>(slope) * dy; });
}

}  // namespace refl::REFL_ISA
