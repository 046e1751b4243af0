// Binders of the attention family.
#include "attention/attention.h"

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

AttentionShape shapeOf(const NodeSpec& node) {
  const Operand &q = node.inputs[0], &k = node.inputs[1], &bias = node.inputs[3];
  AttentionShape s = {};
  s.batch = narrow(node, q.dim(0));
  s.heads = narrow(node, node.integer("heads"));
  s.queries = narrow(node, q.dim(1));
  s.keys = narrow(node, k.dim(1));
  s.size = narrow(node, q.dim(2)) / s.heads;
  s.scale = static_cast<float>(node.number("scale"));
  s.causal = node.flag("causal");
  s.groups = bias.present ? narrow(node, bias.dim(0)) : 0;
  s.biasHeads = bias.present ? narrow(node, bias.dim(1)) : 0;
  if (s.size > kMostHeadSize)
    refuse(node, "ERR_SHAPE",
           "has heads of " + std::to_string(s.size) + " features, CUDA kernels " + std::to_string(kMostHeadSize));
  narrow(node, attentionBlocks(s));
  return s;
}

}  // namespace

Bound bindAttention(const NodeSpec& node) {
  const AttentionShape shape = shapeOf(node);
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (node.outputs[1].size() == 0) return nothing();
    return {[shape](const Args& a) {
      const AttentionInputs<T> in = {a.in[0].as<const T>(), a.in[1].as<const T>(), a.in[2].as<const T>(),
                                     shape.groups ? a.in[3].as<const T>() : nullptr};
      return attention(shape, in, a.out[0].as<T>(), a.out[1].as<float>(), a.stream);
    }};
  });
}

Bound bindAttentionGrad(const NodeSpec& node) {
  const AttentionShape shape = shapeOf(node);
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const size_t rows = static_cast<size_t>(node.inputs[5].size());
    const auto run = [shape](const Args& a) -> cudaError_t {
      float* delta = reinterpret_cast<float*>(a.scratch);
      const AttentionGradInputs<T> in = {a.in[0].as<const T>(),     a.in[1].as<const T>(),
                                         a.in[2].as<const T>(),     shape.groups ? a.in[3].as<const T>() : nullptr,
                                         a.in[6].as<const T>(),     a.in[5].as<const float>(),
                                         static_cast<float*>(delta)};
      cudaError_t error = attentionDelta(shape, a.in[4].as<const T>(), in.dy, delta, a.stream);
      if (error == cudaSuccess) error = attentionGradQueries(shape, in, a.out[0].as<T>(), a.stream);
      if (error == cudaSuccess) error = attentionGradKeys(shape, in, a.out[1].as<T>(), a.out[2].as<T>(), a.stream);
      if (error == cudaSuccess && shape.groups) error = attentionGradBias(shape, in, a.out[3].as<T>(), a.stream);
      return error;
    };
    return {run, rows * sizeof(float)};
  });
}

}  // namespace refl::cuda
