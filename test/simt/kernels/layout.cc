// Gathers, transpositions, row copies and the adjoint of pad against plain loops.
#include "layout/layout.h"

#include <memory>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;
using Axes = std::vector<GatherAxis>;

namespace {

Values counted(size_t n) {
  Values all(n);
  for (size_t i = 0; i < n; ++i) all[i] = static_cast<double>(i % 251 + 1);
  return all;
}

void expectSame(const Values& actual, const Values& wanted) {
  for (size_t i = 0; i < wanted.size(); ++i)
    if (actual[i] != wanted[i]) fail("element %zu is %g and should be %g", i, actual[i], wanted[i]);
}

/** The index along x that place p of an axis reads, or -1. */
int64_t indexOf(const GatherAxis& axis, int64_t p) {
  const int64_t n = axis.count, i = p + axis.start;
  if (axis.edge == Edge::scale) return p * n / axis.extent;
  if (i >= 0 && i < n) return i;
  if (axis.edge == Edge::wrap) return (i + n) % n;
  if (axis.edge == Edge::mirror) return i < 0 ? -i : 2 * (n - 1) - i;
  if (axis.edge == Edge::clamp) return i < 0 ? 0 : n - 1;
  return -1;
}

template <class E>
void gathered(const Axes& axes, size_t size, int bytes) {
  Gather gather;
  if (!makeGather(axes, sizeof(E), gather)) fail("too many axes");
  if (gather.bytes != bytes) fail("moves %d bytes at a time", gather.bytes);
  size_t count = 1;
  for (const GatherAxis& axis : axes) count *= axis.extent;
  const Input<E> x(counted(size));
  Output<E> y(count);
  check(gatherElements(gather, x.data(), y.data(), nullptr));
  Values wanted(count);
  for (size_t i = 0; i < count; ++i) {
    int64_t offset = 0;
    bool zero = false;
    size_t rest = i;
    for (size_t k = axes.size(); k-- > 0; rest /= axes[k].extent) {
      const int64_t index = indexOf(axes[k], static_cast<int64_t>(rest % axes[k].extent));
      zero = zero || index < 0;
      offset += index * axes[k].stride;
    }
    wanted[i] = zero ? 0 : static_cast<double>(offset % 251 + 1);
  }
  expectSame(y.values(), wanted);
}

/** `outer` matrices [columns, rows] of x become [rows, columns], the matrices' order turned round too. */
template <class E>
void transposed(unsigned rows, unsigned columns, unsigned outer) {
  const unsigned matrix = rows * columns, all = 2 * outer * matrix;
  Transpose t = {rows, columns, columns, rows, 2, {2, outer}, {outer * matrix, matrix}, {matrix, 2 * matrix}};
  const Input<E> x(counted(all));
  Output<E> y(all);
  check(transposeTiles(t, x.data(), y.data(), nullptr));
  const Values from = x.values();
  Values wanted(all);
  for (unsigned a = 0; a < 2; ++a)
    for (unsigned b = 0; b < outer; ++b)
      for (unsigned r = 0; r < rows; ++r)
        for (unsigned c = 0; c < columns; ++c)
          wanted[(b * 2 + a) * matrix + r * columns + c] = from[(a * outer + b) * matrix + c * rows + r];
  expectSame(y.values(), wanted);
}

void copied(unsigned rows, size_t first, size_t second) {
  const size_t stride = first + second;
  const Input<uint8_t> a(counted(rows * first)), b(counted(rows * second));
  Output<uint8_t> y(rows * stride);
  check(copyRows(a.data(), rows, first, y.data(), stride, 0, nullptr));
  check(copyRows(b.data(), rows, second, y.data(), stride, first, nullptr));
  const Values as = a.values(), bs = b.values();
  Values wanted;
  for (unsigned r = 0; r < rows; ++r) {
    wanted.insert(wanted.end(), as.begin() + r * first, as.begin() + (r + 1) * first);
    wanted.insert(wanted.end(), bs.begin() + r * second, bs.begin() + (r + 1) * second);
  }
  expectSame(y.values(), wanted);
}

int64_t sourceOf(PadMode mode, const PadAxis& axis, int64_t place) {
  constexpr Edge kEdges[] = {Edge::zero, Edge::mirror, Edge::clamp};
  return indexOf({0, 0, -axis.before, static_cast<unsigned>(axis.extent), kEdges[static_cast<int>(mode)]}, place);
}

/** `axes` innermost first; their strides are filled in. */
template <class T>
void padded(PadMode mode, std::vector<PadAxis> axes) {
  PadShape shape = {};
  shape.mode = mode;
  size_t size = 1, count = 1;
  for (PadAxis& axis : axes) {
    axis.stride = static_cast<unsigned>(size);
    size *= axis.before + axis.extent + axis.after;
    count *= axis.extent;
    shape.axis[shape.axes++] = axis;
  }
  const Input<T> dy(uniform(size, -1, 1, 7));
  Output<T> dx(count);
  check(padGrad(shape, dy.data(), dx.data(), static_cast<unsigned>(count), nullptr));
  const Values from = dy.values();
  Values wanted(count), naive(count);
  for (size_t i = 0; i < size; ++i) {
    size_t rest = i, to = 0, step = 1;
    bool none = false;
    for (const PadAxis& axis : axes) {
      const size_t extent = axis.before + axis.extent + axis.after;
      const int64_t index = sourceOf(mode, axis, static_cast<int64_t>(rest % extent));
      rest /= extent;
      none = none || index < 0;
      to += step * index;
      step *= axis.extent;
    }
    if (none) continue;
    wanted[to] += from[i];
    naive[to] = rounded<T>(naive[to] + from[i]);
  }
  if (sizeof(T) == 4)
    expectClose(dx.values(), wanted, 1e-6, "dx");
  else
    expectNoWorse(dx.values(), wanted, naive, 2, "dx");
}

template <class E>
void addUnits(const std::string& type) {
  constexpr int kBytes = sizeof(E);
  const auto add = [&](const char* name, const Axes& axes, size_t size, int bytes) {
    addCase(type + " gather, " + name, [=] { gathered<E>(axes, size, bytes); });
  };
  const Edge inside = Edge::inside;
  add("one element", {}, 1, kBytes);
  add("all", {{3, 35, 0, 3, inside}, {5, 7, 0, 5, inside}, {7, 1, 0, 7, inside}}, 105, kBytes);
  add("wide units", {{5, 48, 1, 7, inside}, {3, 16, 0, 3, inside}, {16, 1, 0, 16, inside}}, 336, 16);
  add("a box", {{2, 40, 1, 4, inside}, {5, 8, 0, 5, inside}, {3, 1, 2, 8, inside}}, 160, kBytes);
  add("an even box", {{2, 40, 1, 4, inside}, {5, 8, 0, 5, inside}, {4, 1, 2, 8, inside}}, 160, kBytes * 2);
  add("repeated", {{4, 0, 0, 4, inside}, {3, 2, 0, 3, inside}, {2, 1, 0, 2, inside}, {5, 0, 0, 5, inside}}, 6, kBytes);
  add("axes turned round", {{9, 1, 0, 9, inside}, {2, 27, 0, 2, inside}, {3, 9, 0, 3, inside}}, 54, kBytes);
  add("zeros", {{6, 20, -1, 3, Edge::zero}, {9, 4, -2, 5, Edge::zero}, {4, 1, 0, 4, inside}}, 60,
      kBytes == 4 ? 16 : kBytes * 4);
  add("zeros before and after a row", {{3, 6, 0, 3, inside}, {12, 1, -4, 6, Edge::zero}}, 18, kBytes * 2);
  add("mirrored", {{8, 21, -2, 4, Edge::mirror}, {12, 3, -6, 7, Edge::mirror}, {3, 1, 0, 3, inside}}, 84, kBytes);
  add("borders repeated", {{7, 15, -3, 2, Edge::clamp}, {9, 1, -1, 15, Edge::clamp}}, 30, kBytes);
  add("rolled", {{4, 15, -3, 4, Edge::wrap}, {5, 3, -1, 5, Edge::wrap}, {3, 1, -2, 3, Edge::wrap}}, 60, kBytes);
  add("another scale", {{5, 21, 0, 3, Edge::scale}, {4, 3, 0, 7, Edge::scale}, {3, 1, 0, 3, inside}}, 63, kBytes);
  add("over a block", {{257, 2, 0, 257, inside}, {1, 1, 1, 2, inside}}, 514, kBytes);

  const std::pair<unsigned, unsigned> sides[] = {{1, 1}, {64, 64}, {65, 3}, {3, 65}, {130, 63}};
  for (const auto& [rows, columns] : sides)
    addCase(type + " transpose, " + std::to_string(rows) + " x " + std::to_string(columns),
            [r = rows, c = columns] { transposed<E>(r, c, 3); });
}

template <class T>
void addPads(const std::string& type) {
  for (const PadMode mode : {PadMode::zero, PadMode::reflect, PadMode::replicate}) {
    const std::string name = type + " padGrad, mode " + std::to_string(static_cast<int>(mode)) + ", ";
    const auto add = [&](const char* what, const std::vector<PadAxis>& axes) {
      addCase(name + what, [=] { padded<T>(mode, axes); });
    };
    add("images", {{3, 0, 0, 0}, {5, 2, 1, 0}, {4, 1, 3, 0}, {2, 0, 0, 0}});
    add("wide pads", {{4, 3, 3, 0}, {6, 5, 5, 0}});
    add("one side each", {{5, 0, 4, 0}, {7, 3, 0, 0}});
    add("two elements", {{2, 1, 1, 0}, {150, 1, 1, 0}});
    if (mode != PadMode::reflect) add("one element", {{1, 2, 3, 0}, {1, 0, 4, 0}});
  }
}

const bool added = [] {
  addUnits<uint8_t>("u8");
  addUnits<uint16_t>("u16");
  addUnits<uint32_t>("u32");
  const std::pair<size_t, size_t> widths[] = {{1, 3}, {2, 4}, {6, 2}, {4, 12}, {16, 32}, {16, 4}, {1, 16}};
  for (const auto& [first, second] : widths)
    addCase("copyRows, " + std::to_string(first) + " and " + std::to_string(second) + " bytes",
            [a = first, b = second] { copied(67, a, b); });
  addPads<float>("f32");
  addPads<bf16>("bf16");
  addPads<f16>("f16");
  return true;
}();

}  // namespace
