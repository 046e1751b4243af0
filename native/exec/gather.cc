#include "exec/gather.h"

#include <algorithm>
#include <cstring>

#include "exec/buffer.h"
#include "exec/files.h"
#include "exec/status.h"

namespace refl {

namespace {

// An axis of a slice: how many values apart its neighbours lie in the file, and in the result.
struct Axis {
  int64_t extent, from, to;
};

// The axes along which there are neighbours, those with the widest steps in the file first.
std::vector<Axis> axesOf(const FileSlice& slice) {
  const size_t rank = slice.shape.size();
  if (!slice.strides.empty() && slice.strides.size() != rank) {
    throw Error("ERR_WEIGHTS", slice.path + ": a slice has " + std::to_string(rank) + " axes and " +
                                   std::to_string(slice.strides.size()) + " strides");
  }
  std::vector<Axis> axes;
  int64_t rows = 1;
  for (size_t i = rank; i-- > 0;) {
    const int64_t extent = slice.shape[i], from = slice.strides.empty() ? rows : slice.strides[i];
    if (from < 0) throw Error("ERR_WEIGHTS", slice.path + ": a slice has a negative stride");
    if (extent > 1) axes.push_back({extent, from, rows});
    rows *= extent;
  }
  std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.from > b.from; });
  return axes;
}

int64_t spanOf(const FileSlice& slice, const std::vector<Axis>& axes) {
  int64_t span = 1;
  for (const Axis& axis : axes) {
    int64_t reach = 0;
    if (__builtin_mul_overflow(axis.extent - 1, axis.from, &reach) || __builtin_add_overflow(span, reach, &span) ||
        span > int64_t{1} << 53) {
      throw Error("ERR_WEIGHTS", slice.path + ": a slice reaches beyond any file");
    }
  }
  return span;
}

// A window of a slice's span, moved forward as values are asked for.
class Window {
 public:
  Window(const FileValues& values, int64_t span, size_t width)
      : values_(values), span_(span), width_(width), bytes_(static_cast<size_t>(std::min(span, kCount)) * width) {}

  const std::byte* at(int64_t position) {
    if (position < first_ || position >= first_ + count_) {
      first_ = position;
      count_ = std::min(kCount, span_ - position);
      values_.read(first_, count_, bytes_.data());
    }
    return bytes_.data() + static_cast<size_t>(position - first_) * width_;
  }

 private:
  // Small enough to be read for one value of a sparse slice, large enough that a dense one costs few reads.
  static constexpr int64_t kCount = 1 << 13;

  const FileValues& values_;
  const int64_t span_;
  const size_t width_;
  std::vector<std::byte> bytes_;
  int64_t first_ = 0, count_ = 0;
};

void copy(Window& window, const std::vector<Axis>& axes, size_t axis, int64_t from, std::byte* to, size_t width) {
  if (axis == axes.size()) {
    std::memcpy(to, window.at(from), width);
    return;
  }
  const auto [extent, step, apart] = axes[axis];
  for (int64_t i = 0; i < extent; i++) {
    copy(window, axes, axis + 1, from + i * step, to + static_cast<size_t>(i * apart) * width, width);
  }
}

}  // namespace

std::vector<std::byte> gather(const std::vector<FileSlice>& slices, DType dtype, int64_t count) {
  const size_t width = bytesOf(dtype);
  int64_t missing = count;
  for (const FileSlice& slice : slices) {
    const int64_t size = checkedBytes(dtype, slice.shape) / static_cast<int64_t>(width);
    if (size > missing) {
      missing = -1;
      break;
    }
    missing -= size;
  }
  if (missing != 0) {
    throw Error("ERR_WEIGHTS", "the slices do not have " + std::to_string(count) + " values, as the parameter has");
  }
  std::vector<std::byte> bytes(static_cast<size_t>(count) * width);
  std::byte* to = bytes.data();
  for (const FileSlice& slice : slices) {
    const std::vector<Axis> axes = axesOf(slice);
    const int64_t size = sizeOf(slice.shape);
    if (size > 0) {
      const int64_t span = spanOf(slice, axes);
      const FileValues values(slice.path, slice.offset, slice.fileType, dtype, span);
      // Values in rows need no window.
      if (slice.strides.empty()) {
        values.read(0, size, to);
      } else {
        Window window(values, span, width);
        copy(window, axes, 0, 0, to, width);
      }
    }
    to += static_cast<size_t>(size) * width;
  }
  return bytes;
}

}  // namespace refl
