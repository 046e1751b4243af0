// Binders of the embedding family.
#include "embedding/embedding.h"

#include "backend/kernel.h"

namespace refl::cuda {

Bound bindEmbedding(const NodeSpec& node) {
  const Operand &table = node.inputs[0], &indices = node.inputs[1], &y = node.outputs[0];
  narrow(node, table.size());
  narrow(node, y.size());
  return onFloat(y.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (y.size() == 0) return nothing();
    return {[rows = static_cast<unsigned>(table.dim(0)), width = static_cast<unsigned>(table.dim(1)),
             count = static_cast<unsigned>(indices.size())](const Args& a) {
      return embedding(a.in[0].as<const T>(), rows, width, a.in[1].as<const int32_t>(), count, a.out[0].as<T>(),
                       a.stream);
    }};
  });
}

Bound bindEmbeddingGrad(const NodeSpec& node) {
  const Operand &indices = node.inputs[0], &dy = node.inputs[1], &dtable = node.outputs[0];
  narrow(node, dy.size());
  narrow(node, dtable.size());
  return onFloat(dtable.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (dtable.size() == 0) return nothing();
    return {[rows = static_cast<unsigned>(dtable.dim(0)), width = static_cast<unsigned>(dtable.dim(1)),
             count = static_cast<unsigned>(indices.size())](const Args& a) {
      return embeddingGrad(a.in[0].as<const int32_t>(), count, a.in[1].as<const T>(), a.out[0].as<T>(), rows, width,
                           a.stream);
    }};
  });
}

}  // namespace refl::cuda
