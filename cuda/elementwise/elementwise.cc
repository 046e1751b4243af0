// Binders of the elementwise family.
#include <algorithm>
#include <cstring>
#include <limits>

#include "elementwise/bind_map.h"

namespace refl::cuda {
namespace {

template <class Op>
Bound bindBroadcast(const NodeSpec& node) {
  constexpr int K = Op::kInputs;
  const int count = narrow(node, node.outputs[0].size());
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (count == 0) return nothing();
    std::vector<int64_t> shapes[K];
    for (int k = 0; k < K; ++k) shapes[k] = node.inputs[k].shape;
    Layout<K> layout;
    if (!broadcast(node.outputs[0].shape, shapes, layout))
      refuse(node, "ERR_SHAPE",
             "broadcasts along more than " + std::to_string(kMostAxes) + " axes that CUDA kernels cannot merge");
    return {[layout](const Args& a) {
      const T* in[Op::kInputs];
      for (int k = 0; k < Op::kInputs; ++k) in[k] = a.in[k].as<const T>();
      return mapBroadcast(Op(), layout, in, a.out[0].as<T>(), a.stream);
    }};
  });
}

float attribute(const NodeSpec& node, const char* name) { return static_cast<float>(node.number(name)); }

/** As onFloat, for the integers too. */
template <class Fn>
Bound onAny(DType dtype, const NodeSpec& node, Fn&& fn) {
  if (dtype == DType::i32) return fn(int32_t{});
  if (dtype == DType::u8) return fn(uint8_t{});
  return onFloat(dtype, node, fn);
}

/** `value` as T, limited to the range of what is whole, NaN being 0. */
template <class T>
T constant(double value) {
  if constexpr (std::is_integral_v<T>) {
    if (value != value) return 0;
    using Limits = std::numeric_limits<T>;
    return static_cast<T>(std::min<double>(std::max<double>(value, Limits::min()), Limits::max()));
  } else {
    return simt::fromFloat<T>(static_cast<float>(value));
  }
}

}  // namespace

Bound bindFull(const NodeSpec& node) {
  const Operand& y = node.outputs[0];
  const double value = node.number("value");
  const int count = narrow(node, y.size());
  return onAny(y.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (count == 0) return nothing();
    const T one = constant<T>(value);
    uint32_t pattern = 0;
    for (size_t i = 0; i < sizeof pattern; i += sizeof one)
      std::memcpy(reinterpret_cast<char*>(&pattern) + i, &one, sizeof one);
    const size_t bytes = static_cast<size_t>(count) * sizeof one;
    return {[pattern, bytes](const Args& a) { return fill(pattern, a.out[0].data, bytes, a.stream); }};
  });
}

Bound bindCast(const NodeSpec& node) {
  const auto count = static_cast<unsigned>(narrow(node, node.outputs[0].size()));
  return onAny(node.inputs[0].dtype, node, [&](auto from) {
    return onAny(node.outputs[0].dtype, node, [&](auto to) -> Bound {
      using From = decltype(from);
      using To = decltype(to);
      if (count == 0) return nothing();
      return {[count](const Args& a) {
        return castElements(a.in[0].as<const From>(), a.out[0].as<To>(), count, a.stream);
      }};
    });
  });
}

Bound bindAdd(const NodeSpec& node) { return bindBroadcast<Add>(node); }
Bound bindSub(const NodeSpec& node) { return bindBroadcast<Sub>(node); }
Bound bindMul(const NodeSpec& node) { return bindBroadcast<Mul>(node); }
Bound bindDiv(const NodeSpec& node) { return bindBroadcast<Div>(node); }
Bound bindMaximum(const NodeSpec& node) { return bindBroadcast<Maximum>(node); }
Bound bindMinimum(const NodeSpec& node) { return bindBroadcast<Minimum>(node); }
Bound bindGreater(const NodeSpec& node) { return bindBroadcast<Greater>(node); }
Bound bindGreaterEqual(const NodeSpec& node) { return bindBroadcast<GreaterEqual>(node); }
Bound bindEqual(const NodeSpec& node) { return bindBroadcast<Equal>(node); }
Bound bindWhere(const NodeSpec& node) { return bindBroadcast<Where>(node); }

Bound bindNeg(const NodeSpec& node) { return bindMap(node, Neg()); }
Bound bindExp(const NodeSpec& node) { return bindMap(node, Exp()); }
Bound bindLog(const NodeSpec& node) { return bindMap(node, Log()); }
Bound bindSqrt(const NodeSpec& node) { return bindMap(node, Sqrt()); }
Bound bindRsqrt(const NodeSpec& node) { return bindMap(node, Rsqrt()); }
Bound bindReciprocal(const NodeSpec& node) { return bindMap(node, Reciprocal()); }
Bound bindSquare(const NodeSpec& node) { return bindMap(node, Square()); }
Bound bindAbs(const NodeSpec& node) { return bindMap(node, Abs()); }
Bound bindSign(const NodeSpec& node) { return bindMap(node, Sign()); }
Bound bindSin(const NodeSpec& node) { return bindMap(node, Sin()); }
Bound bindCos(const NodeSpec& node) { return bindMap(node, Cos()); }
Bound bindTanh(const NodeSpec& node) { return bindMap(node, Tanh()); }
Bound bindSigmoid(const NodeSpec& node) { return bindMap(node, Sigmoid()); }
Bound bindPower(const NodeSpec& node) { return bindMap(node, Power{{}, attribute(node, "exponent")}); }
Bound bindAffine(const NodeSpec& node) {
  return bindMap(node, Affine{{}, attribute(node, "scale"), attribute(node, "shift")});
}
Bound bindClamp(const NodeSpec& node) {
  return bindMap(node, Clamp{{}, attribute(node, "min"), attribute(node, "max")});
}
Bound bindClampGrad(const NodeSpec& node) {
  return bindMap(node, ClampGrad{{}, attribute(node, "min"), attribute(node, "max")});
}
Bound bindLeakyRelu(const NodeSpec& node) {
  const float slope = attribute(node, "slope");
  return slope == 0 ? bindMap(node, Relu()) : bindMap(node, LeakyRelu{{}, slope});
}
Bound bindLeakyReluGrad(const NodeSpec& node) { return bindMap(node, LeakyReluGrad{{}, attribute(node, "slope")}); }

}  // namespace refl::cuda
