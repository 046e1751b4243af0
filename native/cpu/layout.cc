// Operators that move elements and compute nothing (pad's gradient adds). All are bound by memory: each output byte
// is written once and each input byte it needs is read once.
//
// Most of them are one thing: y[i] = x[sum over axes k of offset_k[i_k]], an offset table an axis. The trailing axes
// that stay whole form a block; the axis before them turns into runs of adjacent blocks, so that a row of the output
// is a few memcpy. Work is split over (row, run), runs cut to 64 KiB, into one contiguous range a thread.
#include <cstring>
#include <numeric>
#include <utility>

#include "cpu/support.h"

namespace refl::REFL_ISA {
namespace {

constexpr int64_t kPieceBytes = 64 << 10;  // longest single copy: keeps threads evenly loaded
constexpr int64_t kGrainBytes = 32 << 10;  // least work worth a thread of its own

// Calls fn with an unsigned integer as wide as an element.
template <class Fn>
void onWidth(size_t bytes, Fn&& fn) {
  if (bytes == 1) return fn(uint8_t{});
  if (bytes == 2) return fn(uint16_t{});
  if (bytes == 4) return fn(uint32_t{});
  fn(uint64_t{});
}

Shape stridesOf(const Shape& shape) {
  Shape strides(shape.size());
  int64_t step = 1;
  for (size_t k = shape.size(); k-- > 0; step *= shape[k]) strides[k] = step;
  return strides;
}

// The index of position `linear` in `shape`, advanced in row-major order.
class Odometer {
 public:
  Odometer(const Shape& shape, int64_t linear) : shape_(shape), index_(shape.size()) {
    for (size_t k = shape.size(); k-- > 0; linear /= shape[k]) index_[k] = linear % shape[k];
  }
  void next() {
    for (size_t k = shape_.size(); k-- > 0; index_[k] = 0) {
      if (++index_[k] < shape_[k]) return;
    }
  }
  int64_t operator[](size_t k) const { return index_[k]; }

 private:
  const Shape& shape_;
  Shape index_;
};

// How one output axis reads the input: position i takes index from[i] (-1: zero) of an axis with this stride in
// elements; a stride of 0 repeats.
struct AxisMap {
  int64_t stride;
  std::vector<int64_t> from;

  int64_t extent() const { return static_cast<int64_t>(from.size()); }
  bool whole() const {
    for (int64_t i = 0; i < extent(); ++i) {
      if (from[i] != i) return false;
    }
    return true;
  }
};

std::vector<int64_t> iota(int64_t n, int64_t first = 0) {
  std::vector<int64_t> list(static_cast<size_t>(n));
  std::iota(list.begin(), list.end(), first);
  return list;
}

struct Run {
  enum Kind { copy, repeat, zero } kind;
  int64_t to, from, count;  // in elements; `repeat` writes one element `count` times
};

struct MapPlan {
  Shape outer;                                // extents of the axes walked row by row
  std::vector<std::vector<int64_t>> offsets;  // for each of them, the input offset in elements, or -1: zeros
  std::vector<Run> runs;                      // what makes up one row
  int64_t rowSize = 1;                        // elements
};

std::vector<Run> runsOf(const AxisMap& axis, int64_t block) {
  std::vector<Run> runs;
  if (axis.stride == 0) return {{Run::repeat, 0, 0, axis.extent()}};
  for (int64_t i = 0; i < axis.extent(); ++i) {
    const int64_t from = axis.from[i];
    Run* last = runs.empty() ? nullptr : &runs.back();
    if (last && from < 0 && last->kind == Run::zero) {
      last->count += block;
    } else if (last && from >= 0 && last->kind == Run::copy && last->from + last->count == from * block) {
      last->count += block;
    } else {
      runs.push_back({from < 0 ? Run::zero : Run::copy, i * block, std::max<int64_t>(from, 0) * block, block});
    }
  }
  return runs;
}

std::vector<Run> cut(const std::vector<Run>& runs, int64_t most) {
  std::vector<Run> pieces;
  for (const Run& run : runs) {
    for (int64_t at = 0; at < run.count; at += most) {
      const int64_t from = run.kind == Run::copy ? run.from + at : run.from;
      pieces.push_back({run.kind, run.to + at, from, std::min(most, run.count - at)});
    }
  }
  return pieces;
}

MapPlan planOf(const std::vector<AxisMap>& axes, int64_t bytes) {
  MapPlan plan;
  int64_t block = 1;
  size_t k = axes.size();
  while (k > 0 && axes[k - 1].stride == block && axes[k - 1].whole()) block *= axes[--k].extent();
  plan.rowSize = block;
  plan.runs = {{Run::copy, 0, 0, block}};
  if (k > 0 && (axes[k - 1].stride == block || (axes[k - 1].stride == 0 && block == 1))) {
    plan.runs = runsOf(axes[--k], block);
    plan.rowSize = block * axes[k].extent();
  }
  plan.runs = cut(plan.runs, kPieceBytes / bytes);
  for (size_t j = 0; j < k; ++j) {
    plan.outer.push_back(axes[j].extent());
    std::vector<int64_t> offsets = axes[j].from;
    for (int64_t& offset : offsets) offset = offset < 0 ? -1 : offset * axes[j].stride;
    plan.offsets.push_back(std::move(offsets));
  }
  return plan;
}

void execute(const Run& run, const std::byte* x, std::byte* y, size_t bytes) {
  y += run.to * bytes;
  if (run.kind == Run::zero || !x) {
    std::memset(y, 0, run.count * bytes);
  } else if (run.kind == Run::copy) {
    std::memcpy(y, x + run.from * bytes, run.count * bytes);
  } else {
    onWidth(bytes, [&](auto tag) {
      using W = decltype(tag);
      std::fill_n(reinterpret_cast<W*>(y), run.count, *reinterpret_cast<const W*>(x));
    });
  }
}

Bound bindMap(const NodeSpec& node, const std::vector<AxisMap>& axes) {
  const size_t bytes = bytesOf(node.outputs[0].dtype);
  if (node.outputs[0].size() == 0) return {[](const Args&) {}};
  return {[plan = planOf(axes, bytes), bytes](const Args& args) {
    const auto* x = args.in[0].as<const std::byte>();
    auto* y = args.out[0].as<std::byte>();
    const int64_t pieces = plan.runs.size(), total = sizeOf(plan.outer) * pieces;
    const int64_t grain = kGrainBytes * pieces / (plan.rowSize * bytes) + 1;
    parallelFor(total, grain, [&](int64_t begin, int64_t end) {
      Odometer at(plan.outer, begin / pieces);
      for (int64_t i = begin; i < end; at.next()) {
        const int64_t row = i / pieces;
        const std::byte* from = x;
        for (size_t k = 0; k < plan.outer.size() && from; ++k) {
          const int64_t offset = plan.offsets[k][at[k]];
          from = offset < 0 ? nullptr : from + offset * bytes;
        }
        for (; i < end && i / pieces == row; ++i) {
          execute(plan.runs[i - row * pieces], from, y + row * plan.rowSize * bytes, bytes);
        }
      }
    });
  }};
}

// Where position i of a padded axis of `extent` elements comes from; -1 for a zero.
enum class PadMode { zero, reflect, replicate };
std::vector<int64_t> padMap(int64_t extent, int64_t before, int64_t after, PadMode mode) {
  std::vector<int64_t> from = iota(before + extent + after, -before);
  for (int64_t& i : from) {
    if (i >= 0 && i < extent) continue;
    if (mode == PadMode::zero)
      i = -1;
    else if (mode == PadMode::replicate)
      i = std::clamp<int64_t>(i, 0, extent - 1);
    else
      i = i < 0 ? -i : 2 * (extent - 1) - i;
  }
  return from;
}

std::vector<std::vector<int64_t>> padMaps(const NodeSpec& node, const Shape& unpadded) {
  const auto before = node.integers("before"), after = node.integers("after");
  const auto mode = static_cast<PadMode>(node.integer("mode"));
  std::vector<std::vector<int64_t>> maps;
  for (size_t k = 0; k < unpadded.size(); ++k) maps.push_back(padMap(unpadded[k], before[k], after[k], mode));
  return maps;
}

// Gathers: dx[j] = sum of dy over the positions that pad filled from j, axis by axis, in ascending order. The trailing
// axes without pads are added as one vector; one add a dy element.
template <class T>
Bound bindPadGradOf(const NodeSpec& node) {
  const Shape& to = node.outputs[0].shape;
  const Shape& shape = node.inputs[0].shape;
  const Shape strides = stridesOf(shape);
  size_t padded = to.size();
  int64_t block = 1;
  while (padded > 0 && to[padded - 1] == shape[padded - 1]) block *= to[--padded];
  const Shape outer(to.begin(), to.begin() + padded);
  // sources[k][j]: the dy offsets that went to index j of axis k.
  std::vector<std::vector<std::vector<int64_t>>> sources(padded);
  const auto maps = padMaps(node, to);
  for (size_t k = 0; k < padded; ++k) {
    sources[k].resize(to[k]);
    for (size_t i = 0; i < maps[k].size(); ++i) {
      if (maps[k][i] >= 0) sources[k][maps[k][i]].push_back(static_cast<int64_t>(i) * strides[k]);
    }
  }
  return {[outer, sources, block](const Args& args) {
    const T* dy = args.in[0].as<const T>();
    T* dx = args.out[0].as<T>();
    parallelFor(sizeOf(outer), kGrainBytes / (block * sizeof(T)) + 1, [&](int64_t begin, int64_t end) {
      Odometer at(outer, begin);
      Shape counts(outer.size(), 1);
      Odometer pick(counts, 0);  // back at its start after each full round
      for (int64_t i = begin; i < end; ++i, at.next()) {
        for (size_t k = 0; k < outer.size(); ++k) counts[k] = sources[k][at[k]].size();
        T* sum = dx + i * block;
        std::fill_n(sum, block, T{0});
        for (int64_t n = sizeOf(counts); n > 0; --n, pick.next()) {
          const T* from = dy;
          for (size_t k = 0; k < outer.size(); ++k) from += sources[k][at[k]][pick[k]];
          for (int64_t c = 0; c < block; ++c) sum[c] += from[c];
        }
      }
    });
  }};
}

// Transposes the last output axis against another one, the input's contiguous axis, in tiles of 1024 elements (32x32
// unless an axis is shorter) that stay in L1: reads run along one, writes along the other. All further axes are walked
// around the tiles.
struct TransposePlan {
  Shape outer, outerFrom, outerTo;  // extents and strides of the walked axes
  int64_t rows, rowsTo;             // the input's contiguous axis and its stride in the output
  int64_t cols, colsFrom;           // the output's contiguous axis and its stride in the input
  int64_t rowTile, colTile;
};
constexpr int64_t kTile = 32;

template <class W>
void runTranspose(const TransposePlan& plan, const W* x, W* y) {
  const int64_t down = (plan.rows + plan.rowTile - 1) / plan.rowTile;
  const int64_t across = (plan.cols + plan.colTile - 1) / plan.colTile;
  const Shape tiles{sizeOf(plan.outer), down, across};
  parallelFor(sizeOf(tiles), kGrainBytes / (kTile * kTile * sizeof(W)), [&](int64_t begin, int64_t end) {
    Odometer tile(tiles, begin), at(plan.outer, begin / (down * across));
    for (int64_t t = begin; t < end; ++t, tile.next()) {
      if (t > begin && tile[1] == 0 && tile[2] == 0) at.next();
      const W* from = x;
      W* to = y;
      for (size_t k = 0; k < plan.outer.size(); ++k) {
        from += at[k] * plan.outerFrom[k];
        to += at[k] * plan.outerTo[k];
      }
      const int64_t row = tile[1] * plan.rowTile, col = tile[2] * plan.colTile;
      const int64_t rows = std::min(plan.rowTile, plan.rows - row), cols = std::min(plan.colTile, plan.cols - col);
      from += row + col * plan.colsFrom;
      to += row * plan.rowsTo + col;
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) to[i * plan.rowsTo + j] = from[i + j * plan.colsFrom];
      }
    }
  });
}

}  // namespace

Bound bindTranspose(const NodeSpec& node) {
  const Shape& shape = node.inputs[0].shape;
  const Shape strides = stridesOf(shape);
  // Output axes with their input strides; axes that stay adjacent are merged, those of one element dropped.
  Shape extents, from;
  for (int64_t axis : node.integers("perm")) {
    if (shape[axis] == 1) continue;
    if (!from.empty() && from.back() == strides[axis] * shape[axis]) {
      extents.back() *= shape[axis];
      from.back() = strides[axis];
    } else {
      extents.push_back(shape[axis]);
      from.push_back(strides[axis]);
    }
  }
  if (from.empty() || from.back() == 1 || sizeOf(shape) == 0) {
    std::vector<AxisMap> axes;
    for (size_t k = 0; k < from.size(); ++k) axes.push_back({from[k], iota(extents[k])});
    return bindMap(node, axes);
  }
  const Shape to = stridesOf(extents);
  TransposePlan plan{};
  plan.cols = extents.back();
  plan.colsFrom = from.back();
  for (size_t k = 0; k + 1 < extents.size(); ++k) {
    if (from[k] == 1) {
      plan.rows = extents[k];
      plan.rowsTo = to[k];
    } else {
      plan.outer.push_back(extents[k]);
      plan.outerFrom.push_back(from[k]);
      plan.outerTo.push_back(to[k]);
    }
  }
  plan.rowTile = kTile * kTile / std::min(plan.cols, kTile);
  plan.colTile = kTile * kTile / std::min(plan.rows, kTile);
  return {[plan, bytes = bytesOf(node.outputs[0].dtype)](const Args& args) {
    onWidth(bytes, [&](auto tag) {
      using W = decltype(tag);
      runTranspose(plan, args.in[0].as<const W>(), args.out[0].as<W>());
    });
  }};
}

Bound bindBroadcastTo(const NodeSpec& node) {
  const Shape &shape = node.inputs[0].shape, &to = node.outputs[0].shape;
  const Shape strides = stridesOf(shape);
  const size_t lead = to.size() - shape.size();
  std::vector<AxisMap> axes;
  for (size_t k = 0; k < to.size(); ++k) {
    const bool repeats = k < lead || shape[k - lead] == 1;
    if (to[k] == 1) continue;
    axes.push_back(repeats ? AxisMap{0, std::vector<int64_t>(to[k], 0)} : AxisMap{strides[k - lead], iota(to[k])});
  }
  return bindMap(node, axes);
}

Bound bindSlice(const NodeSpec& node) {
  const Shape strides = stridesOf(node.inputs[0].shape);
  const auto start = node.integers("start"), size = node.integers("size");
  std::vector<AxisMap> axes;
  for (size_t k = 0; k < strides.size(); ++k) axes.push_back({strides[k], iota(size[k], start[k])});
  return bindMap(node, axes);
}

Bound bindRoll(const NodeSpec& node) {
  const Shape& shape = node.inputs[0].shape;
  const Shape strides = stridesOf(shape);
  const auto shifts = node.integers("shifts");
  std::vector<AxisMap> axes;
  for (size_t k = 0; k < shape.size(); ++k) {
    std::vector<int64_t> from = iota(shape[k], -shifts[k]);
    for (int64_t& i : from) i = ((i % shape[k]) + shape[k]) % shape[k];
    axes.push_back({strides[k], std::move(from)});
  }
  return bindMap(node, axes);
}

Bound bindPad(const NodeSpec& node) {
  const Shape& shape = node.inputs[0].shape;
  const Shape strides = stridesOf(shape);
  const auto maps = padMaps(node, shape);
  std::vector<AxisMap> axes;
  for (size_t k = 0; k < shape.size(); ++k) axes.push_back({strides[k], maps[k]});
  return bindMap(node, axes);
}

Bound bindPadGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindPadGradOf<decltype(tag)>(node); });
}

// Rows of the output are the inputs' rows (axis and all after it) side by side.
Bound bindConcat(const NodeSpec& node) {
  struct Piece {
    size_t input;
    int64_t from, to, bytes;
  };
  const int64_t axis = node.integer("axis");
  const auto rowBytes = [&](const Operand& t) {
    return sizeOf(Shape(t.shape.begin() + axis, t.shape.end())) * static_cast<int64_t>(bytesOf(t.dtype));
  };
  const Shape& to = node.outputs[0].shape;
  const int64_t rows = sizeOf(Shape(to.begin(), to.begin() + axis)), stride = rowBytes(node.outputs[0]);
  std::vector<Piece> pieces;
  std::vector<int64_t> strides;
  int64_t column = 0;
  for (size_t k = 0; k < node.inputs.size(); ++k) {
    const int64_t bytes = rowBytes(node.inputs[k]);
    for (int64_t at = 0; at < bytes; at += kPieceBytes) {
      pieces.push_back({k, at, column + at, std::min(kPieceBytes, bytes - at)});
    }
    strides.push_back(bytes);
    column += bytes;
  }
  if (rows == 0 || stride == 0) return {[](const Args&) {}};
  return {[=](const Args& args) {
    const int64_t count = pieces.size();
    parallelFor(rows * count, kGrainBytes * count / stride + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / count;
        const Piece& piece = pieces[i - row * count];
        const auto* from = args.in[piece.input].as<const std::byte>() + row * strides[piece.input] + piece.from;
        std::memcpy(args.out[0].as<std::byte>() + row * stride + piece.to, from, piece.bytes);
      }
    });
  }};
}

// A view: input and output normally share their bytes. Copies where a program keeps them apart.
Bound bindReshape(const NodeSpec&) {
  return {[](const Args& args) {
    const auto* x = args.in[0].as<const std::byte>();
    auto* y = args.out[0].as<std::byte>();
    if (x == y) return;
    parallelFor(args.out[0].bytes(), kGrainBytes,
                [&](int64_t begin, int64_t end) { std::memcpy(y + begin, x + begin, end - begin); });
  }};
}

}  // namespace refl::REFL_ISA
