// Binders of the norm family.
#include "backend/kernel.h"
#include "elementwise/elementwise.h"
#include "norm/group_norm.h"
#include "norm/layer_norm.h"

namespace refl::cuda {
namespace {

constexpr uint32_t kZero = 0, kNan = 0x7fc00000;

GroupNormShape groupsOf(const NodeSpec& node) {
  const Operand& x = node.inputs[0];
  const int images = narrow(node, x.dim(0)), channels = narrow(node, x.dim(-1));
  const int pixels = x.size() == 0 ? 0 : narrow(node, x.size() / images / channels);
  const int groups = static_cast<int>(node.integer("groups"));
  narrow(node, static_cast<int64_t>(pixels) * channels);
  // Grids have blocks for each image's groups, and for parts of its pixels.
  narrow(node, static_cast<int64_t>(images) * groups);
  narrow(node, static_cast<int64_t>(images) * pixels);
  return {images, pixels, channels, groups};
}

/** Writes a float over all of the second and third result. */
Bound fillTables(const NodeSpec& node, uint32_t value) {
  return {[value, bytes = static_cast<size_t>(node.outputs[1].size()) * sizeof(float)](const Args& a) {
    if (bytes == 0) return cudaSuccess;
    const cudaError_t status = fill(value, a.out[1].data, bytes, a.stream);
    return status == cudaSuccess ? fill(value, a.out[2].data, bytes, a.stream) : status;
  }};
}

}  // namespace

Bound bindGroupNorm(const NodeSpec& node) {
  const GroupNormShape shape = groupsOf(node);
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (node.inputs[0].size() == 0) return fillTables(node, kNan);  // the mean of no pixels
    const auto run = [=, eps = static_cast<float>(node.number("eps")), silu = node.flag("silu")](const Args& a) {
      return groupNormForward(shape, a.in[0].as<const T>(), a.in[1].as<const float>(), a.in[2].as<const float>(), eps,
                              silu, a.out[0].as<T>(), a.out[1].as<float>(), a.out[2].as<float>(),
                              reinterpret_cast<float*>(a.scratch), a.stream);
    };
    return {run, groupNormFits<T>(shape) ? 0 : groupNormScratch(shape)};
  });
}

Bound bindGroupNormGrad(const NodeSpec& node) {
  const GroupNormShape shape = groupsOf(node);
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (node.inputs[0].size() == 0) return fillTables(node, kZero);
    const auto run = [=, silu = node.flag("silu")](const Args& a) {
      return groupNormGrad(shape, a.in[0].as<const T>(), a.in[1].as<const float>(), a.in[2].as<const float>(),
                           a.in[3].as<const float>(), a.in[4].as<const float>(), a.in[5].as<const T>(), silu,
                           a.out[0].as<T>(), a.out[1].as<float>(), a.out[2].as<float>(),
                           reinterpret_cast<float*>(a.scratch), a.stream);
    };
    return {run, groupNormGradScratch(shape)};
  });
}

Bound bindLayerNorm(const NodeSpec& node) {
  const Operand& x = node.inputs[0];
  const int size = narrow(node, x.size());
  return onFloat(x.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (size == 0) return fillTables(node, kNan);
    const int channels = static_cast<int>(x.dim(-1));
    return {[rows = size / channels, channels, eps = static_cast<float>(node.number("eps"))](const Args& a) {
      return layerNorm(rows, channels, a.in[0].as<const T>(), a.in[1].as<const float>(), a.in[2].as<const float>(), eps,
                       a.out[0].as<T>(), a.out[1].as<float>(), a.out[2].as<float>(), a.stream);
    }};
  });
}

Bound bindLayerNormGrad(const NodeSpec& node) {
  const Operand& x = node.inputs[0];
  const int size = narrow(node, x.size());
  return onFloat(x.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (size == 0) return fillTables(node, kZero);
    const int channels = static_cast<int>(x.dim(-1)), rows = size / channels;
    const auto run = [=](const Args& a) {
      return layerNormGrad(rows, channels, a.in[0].as<const T>(), a.in[1].as<const float>(), a.in[2].as<const float>(),
                           a.in[3].as<const float>(), a.in[4].as<const T>(), a.out[0].as<T>(), a.out[1].as<float>(),
                           a.out[2].as<float>(), reinterpret_cast<float*>(a.scratch), a.stream);
    };
    return {run, layerNormGradScratch(rows, channels)};
  });
}

}  // namespace refl::cuda
