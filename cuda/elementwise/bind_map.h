// Binding of operators whose operands all have the result's shape.
#pragma once
#include "backend/kernel.h"
#include "elementwise/elementwise.h"

namespace refl::cuda {

/** On tensors of T, which the node's are. */
template <class T, class Op>
Bound bindMapOf(const NodeSpec& node, const Op& op) {
  const auto count = static_cast<unsigned>(narrow(node, node.outputs[0].size()));
  if (count == 0) return nothing();
  return {[op, count](const Args& a) {
    Inputs<T, Op::kInputs> in = {};
    for (int k = 0; k < Op::kInputs; ++k) in.at[k] = a.in[k].as<const T>();
    return map(op, in, a.out[0].as<T>(), count, a.stream);
  }};
}

template <class Op>
Bound bindMap(const NodeSpec& node, const Op& op) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindMapOf<decltype(tag)>(node, op); });
}

}  // namespace refl::cuda
