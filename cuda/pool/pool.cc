// Binders of the pool family.
#include "pool/pool.h"

#include <algorithm>

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

PoolShape shapeOf(const NodeSpec& node, const Shape& full, const Shape& pooled, const std::vector<int64_t>& padding) {
  const auto kernel = node.integers("kernel"), stride = node.integers("stride");
  narrow(node, sizeOf(full));
  narrow(node, sizeOf(pooled));
  PoolShape s = {};
  s.images = static_cast<unsigned>(full[0]);
  s.channels = static_cast<unsigned>(full[3]);
  s.height = narrow(node, full[1]);
  s.width = narrow(node, full[2]);
  s.outHeight = narrow(node, pooled[1]);
  s.outWidth = narrow(node, pooled[2]);
  s.kernelHeight = narrow(node, kernel[0]);
  s.kernelWidth = narrow(node, kernel[1]);
  s.top = narrow(node, padding[0]);
  s.left = narrow(node, padding[1]);
  // A stride beyond the padded image is never taken.
  s.strideY = static_cast<int>(std::min<int64_t>(stride[0], narrow(node, 2 * (full[1] + padding[0]))));
  s.strideX = static_cast<int>(std::min<int64_t>(stride[1], narrow(node, 2 * (full[2] + padding[1]))));
  return s;
}

/** Binds `run(tag, shape, args)`; `full` and `pooled` are the images before and after pooling. */
template <class Fn>
Bound bindPool(const NodeSpec& node, const Shape& full, const Shape& pooled, const std::vector<int64_t>& padding,
               Fn&& run) {
  const PoolShape shape = shapeOf(node, full, pooled, padding);
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    if (node.outputs[0].size() == 0) return nothing();
    return {[shape, run, tag](const Args& a) { return run(tag, shape, a); }};
  });
}

}  // namespace

Bound bindAvgPool2d(const NodeSpec& node) {
  return bindPool(node, node.inputs[0].shape, node.outputs[0].shape, {0, 0},
                  [](auto tag, const PoolShape& s, const Args& a) {
                    using T = decltype(tag);
                    return avgPool2d(s, a.in[0].as<const T>(), a.out[0].as<T>(), a.stream);
                  });
}

Bound bindAvgPool2dGrad(const NodeSpec& node) {
  return bindPool(node, node.outputs[0].shape, node.inputs[0].shape, {0, 0},
                  [](auto tag, const PoolShape& s, const Args& a) {
                    using T = decltype(tag);
                    return avgPool2dGrad(s, a.in[0].as<const T>(), a.out[0].as<T>(), a.stream);
                  });
}

Bound bindMaxPool2d(const NodeSpec& node) {
  return bindPool(node, node.inputs[0].shape, node.outputs[0].shape, node.integers("padding"),
                  [](auto tag, const PoolShape& s, const Args& a) {
                    using T = decltype(tag);
                    return maxPool2d(s, a.in[0].as<const T>(), a.out[0].as<T>(), a.stream);
                  });
}

Bound bindMaxPool2dGrad(const NodeSpec& node) {
  return bindPool(node, node.inputs[0].shape, node.inputs[1].shape, node.integers("padding"),
                  [](auto tag, const PoolShape& s, const Args& a) {
                    using T = decltype(tag);
                    return maxPool2dGrad(s, a.in[0].as<const T>(), a.in[1].as<const T>(), a.out[0].as<T>(), a.stream);
                  });
}

}  // namespace refl::cuda
