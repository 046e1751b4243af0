// Binders of the resample family. Nearest is a gather; its adjoint adds up like the others'.
#include "resample/resample.h"

#include "backend/kernel.h"
#include "layout/gather.h"

namespace refl::cuda {
namespace {

Bound bindNearest(const NodeSpec& node) {
  const Shape &x = node.inputs[0].shape, &y = node.outputs[0].shape;
  const int bytes = static_cast<int>(bytesOf(node.outputs[0].dtype));
  const auto axis = [](int64_t from, int64_t to, int64_t stride) -> GatherAxis {
    return {static_cast<unsigned>(to), static_cast<unsigned>(stride), 0, static_cast<unsigned>(from),
            from == to ? Edge::inside : Edge::scale};
  };
  Gather gather;
  makeGather({axis(x[0], y[0], x[1] * x[2] * x[3]), axis(x[1], y[1], x[2] * x[3]), axis(x[2], y[2], x[3]),
              axis(x[3], y[3], 1)},
             bytes, gather);
  return {[gather](const Args& a) { return gatherElements(gather, a.in[0].data, a.out[0].data, a.stream); }};
}

Bound bindResizing(const NodeSpec& node, bool adjoint) {
  const Shape &from = node.inputs[0].shape, &to = node.outputs[0].shape;
  narrow(node, node.inputs[0].size());
  narrow(node, node.outputs[0].size());
  for (const int64_t extent : {from[1], from[2], to[1], to[2]}) narrow(node, 8 * extent);  // as the kernels scale them
  const auto filter = static_cast<Filter>(node.integer("mode"));
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (node.outputs[0].size() == 0) return nothing();
    if (filter == Filter::nearest && !adjoint) return bindNearest(node);
    const Shape &in = adjoint ? to : from, &out = adjoint ? from : to;
    const auto size = [](int64_t extent) { return static_cast<int>(extent); };
    const ResizeShape shape =
        makeResize(filter, node.flag("antialias"), adjoint, static_cast<unsigned>(in[0]), {size(in[1]), size(out[1])},
                   {size(in[2]), size(out[2])}, static_cast<unsigned>(in[3]));
    return {
        [shape](const Args& a) { return resize(shape, a.in[0].as<const T>(), a.out[0].as<T>(), a.scratch, a.stream); },
        resizeScratch(shape)};
  });
}

}  // namespace

Bound bindResize(const NodeSpec& node) { return bindResizing(node, false); }
Bound bindResizeGrad(const NodeSpec& node) { return bindResizing(node, true); }

}  // namespace refl::cuda
