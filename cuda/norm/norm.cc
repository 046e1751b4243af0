// Binders of the norm family.
#include "backend/kernel.h"
#include "norm/group_norm.h"

namespace refl::cuda {

Bound bindGroupNorm(const NodeSpec& node) {
  const Operand& x = node.inputs[0];
  const auto images = narrow(node, x.dim(0)), channels = narrow(node, x.dim(-1));
  const int pixels = x.size() == 0 ? 0 : narrow(node, x.size() / images / channels);
  narrow(node, static_cast<int64_t>(pixels) * channels);
  const GroupNormShape shape = {images, pixels, channels, static_cast<int>(node.integer("groups"))};
  const auto eps = static_cast<float>(node.number("eps"));
  const bool silu = node.flag("silu");
  if (x.size() == 0) return {[](const Args&) { return cudaSuccess; }};
  return onFloat(x.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [=](const Args& a) {
      return groupNormForward(shape, a.in[0].as<const T>(), a.in[1].as<const float>(), a.in[2].as<const float>(), eps,
                              silu, a.out[0].as<T>(), a.out[1].as<float>(), a.out[2].as<float>(),
                              reinterpret_cast<float*>(a.scratch), a.stream);
    };
    return {run, groupNormFits<T>(shape) ? 0 : groupNormScratch(shape)};
  });
}

}  // namespace refl::cuda
