// Binders of the activation family.
#include "activation/activation.h"

#include "elementwise/bind_map.h"

namespace refl::cuda {
namespace {

template <template <class> class Op>
Bound bindActivation(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return bindMapOf<T>(node, Op<T>());
  });
}

/** Rows and half their width, of x [..., 2 width]. */
struct Halves {
  unsigned rows, width;
  explicit Halves(const NodeSpec& node) {
    const Operand& x = node.inputs[0];
    const int count = narrow(node, x.size());
    width = count ? static_cast<unsigned>(x.dim(-1) / 2) : 0;
    rows = count ? static_cast<unsigned>(count) / (2 * width) : 0;
  }
};

}  // namespace

Bound bindSilu(const NodeSpec& node) { return bindActivation<Silu>(node); }
Bound bindSiluGrad(const NodeSpec& node) { return bindActivation<SiluGrad>(node); }
Bound bindGelu(const NodeSpec& node) { return bindActivation<Gelu>(node); }
Bound bindGeluGrad(const NodeSpec& node) { return bindActivation<GeluGrad>(node); }
Bound bindQuickGelu(const NodeSpec& node) { return bindActivation<QuickGelu>(node); }
Bound bindQuickGeluGrad(const NodeSpec& node) { return bindActivation<QuickGeluGrad>(node); }

Bound bindGeglu(const NodeSpec& node) {
  const Halves halves(node);
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (halves.rows == 0) return nothing();
    return {[halves](const Args& a) {
      return geglu(a.in[0].as<const T>(), a.out[0].as<T>(), halves.rows, halves.width, a.stream);
    }};
  });
}

Bound bindGegluGrad(const NodeSpec& node) {
  const Halves halves(node);
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (halves.rows == 0) return nothing();
    return {[halves](const Args& a) {
      return gegluGrad(a.in[0].as<const T>(), a.in[1].as<const T>(), a.out[0].as<T>(), halves.rows, halves.width,
                       a.stream);
    }};
  });
}

}  // namespace refl::cuda
