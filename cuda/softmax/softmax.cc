// Binders of the softmax family.
#include "softmax/softmax.h"

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

/** Binds `run(tag, rows, args)`. */
template <class Fn>
Bound bindRows(const NodeSpec& node, Fn&& run) {
  const Operand& y = node.outputs[0];
  const auto size = static_cast<unsigned>(narrow(node, y.size())), width = static_cast<unsigned>(y.dim(-1));
  return onFloat(y.dtype, node, [&](auto tag) -> Bound {
    if (size == 0) return nothing();
    return {[run, tag, rows = Rows{size / width, width}](const Args& a) { return run(tag, rows, a); }};
  });
}

Bound bindForward(const NodeSpec& node, bool logarithm) {
  return bindRows(node, [logarithm](auto tag, const Rows& rows, const Args& a) {
    using T = decltype(tag);
    return softmax(rows, logarithm, a.in[0].as<const T>(), a.out[0].as<T>(), a.stream);
  });
}

Bound bindGrad(const NodeSpec& node, bool logarithm) {
  return bindRows(node, [logarithm](auto tag, const Rows& rows, const Args& a) {
    using T = decltype(tag);
    return softmaxGrad(rows, logarithm, a.in[0].as<const T>(), a.in[1].as<const T>(), a.out[0].as<T>(), a.stream);
  });
}

}  // namespace

Bound bindSoftmax(const NodeSpec& node) { return bindForward(node, false); }
Bound bindLogSoftmax(const NodeSpec& node) { return bindForward(node, true); }
Bound bindSoftmaxGrad(const NodeSpec& node) { return bindGrad(node, false); }
Bound bindLogSoftmaxGrad(const NodeSpec& node) { return bindGrad(node, true); }

}  // namespace refl::cuda
