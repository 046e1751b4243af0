// Elementwise operators. All are limited by memory (two or three streams of n elements) but for the transcendental
// ones, which vecmath.h keeps under a nanosecond an element; float32 is computed in float32.
#include "cpu/elementwise.h"

#include "cpu/map.h"
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

Bound bindAdd(const NodeSpec& node) { return mapBinary(node, kCheap, Add()); }
Bound bindSub(const NodeSpec& node) { return mapBinary(node, kCheap, Sub()); }
Bound bindMul(const NodeSpec& node) { return mapBinary(node, kCheap, Mul()); }
Bound bindDiv(const NodeSpec& node) { return mapBinary(node, kCheap, Div()); }
Bound bindMaximum(const NodeSpec& node) { return mapBinary(node, kCheap, Maximum()); }
Bound bindMinimum(const NodeSpec& node) { return mapBinary(node, kCheap, Minimum()); }
Bound bindGreater(const NodeSpec& node) { return mapBinary(node, kCheap, Greater()); }
Bound bindGreaterEqual(const NodeSpec& node) { return mapBinary(node, kCheap, GreaterEqual()); }
Bound bindEqual(const NodeSpec& node) { return mapBinary(node, kCheap, Equal()); }

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

Bound bindNeg(const NodeSpec& node) { return mapUnary(node, kCheap, Neg()); }
Bound bindExp(const NodeSpec& node) { return mapUnary(node, kCostly, Exp()); }
Bound bindLog(const NodeSpec& node) { return mapUnary(node, kCostly, Log()); }
Bound bindSqrt(const NodeSpec& node) { return mapUnary(node, kCheap, Sqrt()); }
Bound bindRsqrt(const NodeSpec& node) { return mapUnary(node, kCheap, Rsqrt()); }
Bound bindReciprocal(const NodeSpec& node) { return mapUnary(node, kCheap, Reciprocal()); }
Bound bindSquare(const NodeSpec& node) { return mapUnary(node, kCheap, Square()); }
Bound bindAbs(const NodeSpec& node) { return mapUnary(node, kCheap, Abs()); }
Bound bindSign(const NodeSpec& node) { return mapUnary(node, kCheap, Sign()); }
Bound bindSin(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::sin(x); });
}
Bound bindCos(const NodeSpec& node) {
  return mapUnary(node, kCostly, [](auto x) { return vec::cos(x); });
}
Bound bindTanh(const NodeSpec& node) { return mapUnary(node, kCostly, Tanh()); }
Bound bindSigmoid(const NodeSpec& node) { return mapUnary(node, kCostly, Sigmoid()); }

// The C library's power, an element at a time: exact to an ulp where exp(p log x) would lose bits.
Bound bindPower(const NodeSpec& node) {
  const double exponent = node.number("exponent");
  return mapUnary(node, kCostly, [exponent](auto x) { return std::pow(x, static_cast<decltype(x)>(exponent)); });
}

Bound bindAffine(const NodeSpec& node) {
  return mapUnary(node, kCheap, Affine{node.number("scale"), node.number("shift")});
}
Bound bindClamp(const NodeSpec& node) { return mapUnary(node, kCheap, Clamp{node.number("min"), node.number("max")}); }
Bound bindClampGrad(const NodeSpec& node) {
  return mapBinary(node, kCheap, ClampGrad{node.number("min"), node.number("max")});
}
Bound bindLeakyRelu(const NodeSpec& node) {
  const double slope = node.number("slope");
  return slope == 0 ? mapUnary(node, kCheap, Relu()) : mapUnary(node, kCheap, LeakyRelu{slope});
}
Bound bindLeakyReluGrad(const NodeSpec& node) { return mapBinary(node, kCheap, LeakyReluGrad{node.number("slope")}); }

}  // namespace refl::REFL_ISA
