// Binders of the reward family.
#include "reward/reward.h"

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

Vectors vectorsOf(const NodeSpec& node) {
  const Operand &a = node.inputs[0], &b = node.inputs[1];
  narrow(node, a.size());
  narrow(node, b.size());
  narrow(node, node.outputs[0].size());
  int64_t batches = 1;
  for (int64_t i = 0; i + 2 < a.rank(); ++i) batches *= a.dim(i);
  return {static_cast<int>(batches), static_cast<int>(a.dim(-2)), static_cast<int>(b.dim(-2)),
          static_cast<int>(a.dim(-1)), static_cast<float>(1 / node.number("eps"))};
}

template <class T>
Logits<T> logitsOf(const NodeSpec& node) {
  const Operand& x = node.inputs[0];
  const int size = narrow(node, x.size()), classes = static_cast<int>(x.dim(-1));
  return {size / classes, classes, nullptr, nullptr, nullptr, nullptr};
}

/** With the addresses of a run. */
template <class T>
Logits<T> placed(Logits<T> s, const Args& a) {
  s.x = a.in[0].as<const T>();
  if (a.in[1].dtype == DType::i32)
    s.numbers = a.in[1].as<const int32_t>();
  else
    s.shares = a.in[1].as<const T>();
  s.logScale = a.in[2].as<const float>();
  return s;
}

Features featuresOf(const NodeSpec& node) {
  const Operand& a = node.inputs[0];
  const int size = narrow(node, a.size()), images = static_cast<int>(a.dim(0)), channels = static_cast<int>(a.dim(-1));
  return {images, size / images / channels, channels};
}

/** Images as the input `x` has them, and bands as the inputs from `taps` on. */
Filter filterOf(const NodeSpec& node, size_t taps) {
  const Operand &x = node.inputs[0], &y = node.outputs[0];
  narrow(node, x.size());
  narrow(node, y.size());
  narrow(node, x.dim(0) * y.dim(1) * x.dim(2) * x.dim(3));  // between the axes, either first
  narrow(node, x.dim(0) * x.dim(1) * y.dim(2) * x.dim(3));
  const auto band = [&](size_t input, int64_t axis) -> Band {
    const Operand& table = node.inputs[input];
    return {nullptr, nullptr, static_cast<int>(table.dim(0)), static_cast<int>(x.dim(axis)),
            static_cast<int>(table.dim(1))};
  };
  return {static_cast<int>(x.dim(0)), static_cast<int>(x.dim(3)), band(taps, 1), band(taps + 2, 2)};
}

/** With the addresses of a run. */
Filter placed(Filter f, const Tensor* tables) {
  f.alongY.taps = tables[0].as<const float>();
  f.alongY.first = tables[1].as<const int32_t>();
  f.alongX.taps = tables[2].as<const float>();
  f.alongX.first = tables[3].as<const int32_t>();
  return f;
}

}  // namespace

Bound bindCosines(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const Vectors s = vectorsOf(node);
    if (node.outputs[1].size() == 0 && node.outputs[2].size() == 0) return nothing();
    return {[s](const Args& a) {
      return cosines(s, a.in[0].as<const T>(), a.in[1].as<const T>(), a.out[0].as<float>(), a.out[1].as<float>(),
                     a.out[2].as<float>(), a.stream);
    }};
  });
}

Bound bindCosinesGrad(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const Vectors s = vectorsOf(node);
    if (node.outputs[0].size() == 0 && node.outputs[1].size() == 0) return nothing();
    return {[s](const Args& a) {
      return cosinesGrad(s, a.in[0].as<const T>(), a.in[1].as<const T>(), a.in[2].as<const float>(),
                         a.in[3].as<const float>(), a.in[4].as<const float>(), a.in[5].as<const float>(),
                         a.out[0].as<T>(), a.out[1].as<T>(), a.stream);
    }};
  });
}

Bound bindCrossEntropy(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    return {
        [s = logitsOf<T>(node)](const Args& a) { return crossEntropy(placed(s, a), a.out[0].as<float>(), a.stream); }};
  });
}

Bound bindCrossEntropyGrad(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    return {[s = logitsOf<T>(node)](const Args& a) {
      return crossEntropyGrad(placed(s, a), a.in[3].as<const float>(), a.out[0].as<T>(), a.out[1].as<float>(),
                              a.stream);
    }};
  });
}

Bound bindDirectionDistance(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const Features s = featuresOf(node);
    const auto run = [s](const Args& a) {
      return directionDistance(s, a.in[0].as<const T>(), a.in[1].as<const T>(), a.in[2].as<const float>(),
                               a.out[0].as<float>(), reinterpret_cast<float*>(a.scratch), a.stream);
    };
    return {run, directionDistanceScratch<T>(s)};
  });
}

Bound bindDirectionDistanceGrad(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    return {[s = featuresOf(node)](const Args& a) {
      return directionDistanceGrad(s, a.in[0].as<const T>(), a.in[1].as<const T>(), a.in[2].as<const float>(),
                                   a.in[3].as<const float>(), a.out[0].as<T>(), a.stream);
    }};
  });
}

Bound bindMeanError(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    std::vector<ErrorPair<T>> pairs;
    for (size_t i = 0; i < node.inputs.size(); i += 2)
      pairs.push_back({nullptr, nullptr, narrow(node, node.inputs[i].size())});
    const auto run = [pairs, absolute = node.flag("absolute")](const Args& a) {
      std::vector<ErrorPair<T>> placed = pairs;
      for (size_t i = 0; i < placed.size(); ++i) {
        placed[i].a = a.in[2 * i].as<const T>();
        placed[i].b = a.in[2 * i + 1].as<const T>();
      }
      return meanError(placed, absolute, reinterpret_cast<double*>(a.scratch), a.out[0].as<float>(), a.stream);
    };
    return {run, meanErrorScratch(pairs)};
  });
}

Bound bindLowPass(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const Filter f = filterOf(node, 1);
    const auto run = [f](const Args& a) {
      return lowPass(placed(f, a.in + 1), a.in[0].as<const T>(), a.out[0].as<float>(), a.out[1].as<float>(),
                     reinterpret_cast<float*>(a.scratch), a.stream);
    };
    return {run, lowPassScratch(f)};
  });
}

Bound bindLowPassGrad(const NodeSpec& node) {
  if (node.outputs[0].dtype != DType::f32) refuse(node, "ERR_DTYPE", "computes float32 alone on CUDA");
  const Filter f = filterOf(node, 3);
  const auto run = [f](const Args& a) {
    return lowPassGrad(placed(f, a.in + 3), a.in[0].as<const float>(), a.in[1].as<const float>(),
                       a.in[2].as<const float>(), a.out[0].as<float>(), reinterpret_cast<float*>(a.scratch), a.stream);
  };
  return {run, lowPassGradScratch(f)};
}

}  // namespace refl::cuda
