// Binders of the random family.
#include "random/random.h"

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

template <class Draw>
Bound bindRandom(const NodeSpec& node, Draw draw) {
  const auto count = static_cast<unsigned>(narrow(node, node.outputs[0].size()));
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (count == 0) return nothing();
    return {[=](const Args& a) { return draw(a.in[0].as<const uint32_t>(), a.out[0].as<T>(), count, a.stream); }};
  });
}

}  // namespace

Bound bindRandomUniform(const NodeSpec& node) {
  return bindRandom(node, [](auto... arguments) { return randomUniform(arguments...); });
}
Bound bindRandomNormal(const NodeSpec& node) {
  return bindRandom(node, [](auto... arguments) { return randomNormal(arguments...); });
}

}  // namespace refl::cuda
