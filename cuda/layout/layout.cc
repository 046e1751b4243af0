// Binders of the layout family.
#include "layout/layout.h"

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

constexpr unsigned kLeastSide = 32;  // of a matrix that is worth tiles

Shape stridesOf(const Shape& shape) {
  Shape strides(shape.size());
  int64_t step = 1;
  for (size_t k = shape.size(); k-- > 0; step *= shape[k]) strides[k] = step;
  return strides;
}

int elementBytes(const NodeSpec& node) {
  const DType dtype = node.outputs[0].dtype;
  if (dtype == DType::f64) onFloat(dtype, node, [](auto) {});  // refuses it
  return static_cast<int>(bytesOf(dtype));
}

/** The axis of a tensor of `extent` elements, read whole. */
GatherAxis plainAxis(int64_t extent, int64_t stride) {
  return {static_cast<unsigned>(extent), static_cast<unsigned>(stride), 0, static_cast<unsigned>(extent), Edge::inside};
}

Gather gatherOf(const NodeSpec& node, const std::vector<GatherAxis>& axes) {
  Gather gather;
  if (!makeGather(axes, elementBytes(node), gather))
    refuse(node, "ERR_SHAPE",
           "has more than " + std::to_string(kMostGatherAxes) + " axes that CUDA kernels cannot merge");
  return gather;
}

Bound bindGather(const NodeSpec& node, const std::vector<GatherAxis>& axes) {
  const Gather gather = gatherOf(node, axes);
  return {[gather](const Args& a) { return gatherElements(gather, a.in[0].data, a.out[0].data, a.stream); }};
}

/** Whether the node has anything to write; refuses what 32 bits cannot index. */
bool writes(const NodeSpec& node) {
  for (const Operand& x : node.inputs) narrow(node, x.size());
  elementBytes(node);
  return narrow(node, node.outputs[0].size()) > 0;
}

/** The axes of x in their order, each as `axisOf(k, stride)` reads it. */
template <class Fn>
Bound bindAxes(const NodeSpec& node, Fn&& axisOf) {
  if (!writes(node)) return nothing();
  const Shape strides = stridesOf(node.inputs[0].shape);
  std::vector<GatherAxis> axes;
  for (size_t k = 0; k < strides.size(); ++k) axes.push_back(axisOf(k, static_cast<unsigned>(strides[k])));
  return bindGather(node, axes);
}

/** Where both the rows of x and those of y are long enough, as matrices that are turned round. */
bool makeTranspose(const Gather& gather, Transpose& t) {
  const GatherAxis& columns = gather.axis[0];
  t = {};
  t.columns = columns.extent;
  t.columnStride = columns.stride;
  unsigned to = columns.extent;
  for (int k = 1; k < gather.axes; to *= gather.axis[k++].extent) {
    const GatherAxis& axis = gather.axis[k];
    if (axis.stride == 1) {
      t.rows = axis.extent;
      t.rowStride = to;
      continue;
    }
    t.extent[t.outer] = axis.extent;
    t.from[t.outer] = axis.stride;
    t.to[t.outer++] = to;
  }
  return columns.stride != 1 && t.columns >= kLeastSide && t.rows >= kLeastSide;
}

}  // namespace

Bound bindTranspose(const NodeSpec& node) {
  if (!writes(node)) return nothing();
  const Shape &shape = node.inputs[0].shape, strides = stridesOf(shape);
  std::vector<GatherAxis> axes;
  for (const int64_t axis : node.integers("perm")) axes.push_back(plainAxis(shape[axis], strides[axis]));
  Transpose t;
  if (!makeTranspose(gatherOf(node, axes), t)) return bindGather(node, axes);
  return {[t, bytes = elementBytes(node)](const Args& a) {
    const auto run = [&](auto element) {
      using E = decltype(element);
      return transposeTiles(t, a.in[0].as<const E>(), a.out[0].as<E>(), a.stream);
    };
    return bytes == 1 ? run(uint8_t()) : bytes == 2 ? run(uint16_t()) : run(uint32_t());
  }};
}

Bound bindBroadcastTo(const NodeSpec& node) {
  if (!writes(node)) return nothing();
  const Shape &shape = node.inputs[0].shape, &to = node.outputs[0].shape, strides = stridesOf(shape);
  const size_t lead = to.size() - shape.size();
  std::vector<GatherAxis> axes;
  for (size_t k = 0; k < to.size(); ++k)
    axes.push_back(plainAxis(to[k], k < lead || shape[k - lead] == 1 ? 0 : strides[k - lead]));
  return bindGather(node, axes);
}

Bound bindSlice(const NodeSpec& node) {
  const auto start = node.integers("start"), size = node.integers("size");
  const Shape& shape = node.inputs[0].shape;
  return bindAxes(node, [&](size_t k, unsigned stride) -> GatherAxis {
    return {static_cast<unsigned>(size[k]), stride, static_cast<int>(start[k]), static_cast<unsigned>(shape[k]),
            Edge::inside};
  });
}

Bound bindRoll(const NodeSpec& node) {
  const auto shifts = node.integers("shifts");
  const Shape& shape = node.inputs[0].shape;
  return bindAxes(node, [&](size_t k, unsigned stride) {
    GatherAxis axis = plainAxis(shape[k], stride);
    axis.start = -static_cast<int>((shifts[k] % shape[k] + shape[k]) % shape[k]);
    if (axis.start) axis.edge = Edge::wrap;
    return axis;
  });
}

Bound bindPad(const NodeSpec& node) {
  const auto before = node.integers("before"), after = node.integers("after");
  constexpr Edge kEdges[] = {Edge::zero, Edge::mirror, Edge::clamp};
  const Edge edge = kEdges[node.integer("mode")];
  const Shape& shape = node.inputs[0].shape;
  return bindAxes(node, [&](size_t k, unsigned stride) {
    GatherAxis axis = plainAxis(shape[k], stride);
    axis.start = -static_cast<int>(before[k]);
    axis.extent = static_cast<unsigned>(before[k] + shape[k] + after[k]);
    if (axis.extent != axis.count) axis.edge = edge;
    return axis;
  });
}

Bound bindPadGrad(const NodeSpec& node) {
  const auto before = node.integers("before"), after = node.integers("after");
  const Shape &shape = node.outputs[0].shape, strides = stridesOf(node.inputs[0].shape);
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (!writes(node)) return nothing();
    PadShape pads = {};
    pads.mode = static_cast<PadMode>(node.integer("mode"));
    for (size_t k = shape.size(); k-- > 0;) {
      const auto extent = static_cast<int>(shape[k]);
      PadAxis* inner = pads.axes ? &pads.axis[pads.axes - 1] : nullptr;
      // An axis without pads joins the one inside it if that has none.
      if (inner && before[k] + after[k] + inner->before + inner->after == 0) {
        inner->extent *= extent;
        continue;
      }
      if (pads.axes == kMostGatherAxes)
        refuse(node, "ERR_SHAPE", "pads more than " + std::to_string(kMostGatherAxes) + " axes of a CUDA kernel");
      pads.axis[pads.axes++] = {extent, static_cast<int>(before[k]), static_cast<int>(after[k]),
                                static_cast<unsigned>(strides[k])};
    }
    return {[pads, count = static_cast<unsigned>(node.outputs[0].size())](const Args& a) {
      return padGrad(pads, a.in[0].as<const T>(), a.out[0].as<T>(), count, a.stream);
    }};
  });
}

Bound bindConcat(const NodeSpec& node) {
  if (!writes(node)) return nothing();
  const int64_t axis = node.integer("axis");
  const auto rowBytes = [&](const Operand& t) {
    return static_cast<size_t>(sizeOf(Shape(t.shape.begin() + axis, t.shape.end()))) * bytesOf(t.dtype);
  };
  const Shape& to = node.outputs[0].shape;
  const auto rows = static_cast<unsigned>(sizeOf(Shape(to.begin(), to.begin() + axis)));
  std::vector<size_t> widths;
  for (const Operand& t : node.inputs) widths.push_back(rowBytes(t));
  return {[rows, widths, stride = rowBytes(node.outputs[0])](const Args& a) {
    size_t column = 0;
    for (size_t k = 0; k < widths.size(); column += widths[k++]) {
      if (widths[k] == 0) continue;
      const cudaError_t status = copyRows(a.in[k].data, rows, widths[k], a.out[0].data, stride, column, a.stream);
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  }};
}

// A view: input and output normally share their bytes. Copies where a program keeps them apart.
Bound bindReshape(const NodeSpec& node) {
  if (!writes(node)) return nothing();
  const size_t bytes = static_cast<size_t>(node.outputs[0].size()) * bytesOf(node.outputs[0].dtype);
  return {[bytes](const Args& a) {
    if (a.in[0].data == a.out[0].data) return cudaSuccess;
    return copyRows(a.in[0].data, 1, bytes, a.out[0].data, bytes, 0, a.stream);
  }};
}

}  // namespace refl::cuda
