// Images filtered along both axes by bands (matrices whose rows have a few numbers each), with the mean of what is
// left.
//
// Down the columns: an output row is a sum of input rows, four vectors of columns at a time, which stay in registers.
// Along the rows: as many rows as a vector has lanes are transposed, so that one vector holds one pixel's channel of
// each, and are filtered together. Bytes, of an image of I that leaves an image of L: I read, the rows between written
// and read once, L written; backwards the same the other way. Two operations a tap. Sums of a row are in the element
// type, of rows in float64, in an order that no thread count changes.
#include "cpu/simd.h"
#include "cpu/support.h"

namespace refl::REFL_ISA {
namespace {

// A filter from `from` to `to` places: taps [count, to], which begin at `first`.
template <class T>
struct Band {
  const T* taps;
  const int32_t* first;
  int64_t count, from, to;
  Band(const Tensor& table, const Tensor& starts, int64_t places)
      : taps(table.as<const T>()),
        first(starts.as<const int32_t>()),
        count(table.dim(0)),
        from(places),
        to(table.dim(1)) {
    for (int64_t i = 0; i < to; i++)
      if (first[i] < 0 || first[i] + count > from) throw Error("ERR_FEED", "lowPass: a band reaches beyond the image");
  }
};

// y [images, band.to, inner] from x [images, band.from, inner].
template <class T>
void downColumns(const Band<T>& band, int64_t images, int64_t inner, const T* x, T* y) {
  constexpr int64_t kWide = 4 * kLanes<T>;
  parallelFor(images * band.to, 1 + 16384 / (band.count * inner + 1), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const int64_t image = row / band.to, i = row % band.to;
      const T* from = x + (image * band.from + band.first[i]) * inner;
      int64_t j = 0;
      for (; j + kWide <= inner; j += kWide) {
        Vector<T> sum[4] = {};
        for (int64_t k = 0; k < band.count; k++) {
          const T tap = band.taps[k * band.to + i];
          for (int64_t v = 0; v < 4; v++) sum[v] += tap * load(from + k * inner + j + v * kLanes<T>);
        }
        for (int64_t v = 0; v < 4; v++) store(y + row * inner + j + v * kLanes<T>, sum[v]);
      }
      for (; j < inner; j++) {
        T sum = 0;
        for (int64_t k = 0; k < band.count; k++) sum += band.taps[k * band.to + i] * from[k * inner + j];
        y[row * inner + j] = sum;
      }
    }
  });
}

// Elements of alongRows' scratch: rows that are not there, to whole vectors, are zeros.
template <class T>
int64_t tileOf(int64_t from, int64_t to, int64_t channels) {
  return kLanes<T> * (from + to) * channels;
}
template <class T>
int64_t tilesOf(int64_t rows) {
  return (rows + kLanes<T> - 1) / kLanes<T>;
}

// Filters rows of band.from pixels: element j of row r is value(r, j), and drain(r, elements, their stride) takes it.
template <class T, class Value, class Drain>
void alongRows(const Band<T>& band, int64_t rows, int64_t channels, T* scratch, Value&& value, Drain&& drain) {
  constexpr int64_t W = kLanes<T>;
  parallelFor(tilesOf<T>(rows), 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; tile++) {
      T* in = scratch + tile * tileOf<T>(band.from, band.to, channels);
      T* out = in + W * band.from * channels;
      const int64_t first = tile * W, count = std::min(W, rows - first);
      for (int64_t r = 0; r < W; r++)
        for (int64_t j = 0; j < band.from * channels; j++) in[j * W + r] = r < count ? value(first + r, j) : T{0};
      for (int64_t i = 0; i < band.to; i++) {
        for (int64_t c = 0; c < channels; c++) {
          Vector<T> sum = {};
          for (int64_t k = 0; k < band.count; k++)
            sum += band.taps[k * band.to + i] * load(in + ((band.first[i] + k) * channels + c) * W);
          store(out + (i * channels + c) * W, sum);
        }
      }
      for (int64_t r = 0; r < count; r++) drain(first + r, out + r, W);
    }
  });
}

}  // namespace

Bound bindLowPass(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const Operand &x = node.inputs[0], &y = node.outputs[0];
    const int64_t images = x.dim(0), h = x.dim(1), w = x.dim(2), channels = x.dim(3), rows = y.dim(0) * y.dim(1);
    const int64_t width = y.dim(2) * channels;
    const auto run = [=](const Args& args) {
      const Band<T> alongY(args.in[1], args.in[2], h), alongX(args.in[3], args.in[4], w);
      auto* sums = reinterpret_cast<double*>(args.scratch);
      T* between = reinterpret_cast<T*>(sums + rows);
      downColumns(alongY, images, w * channels, args.in[0].as<const T>(), between);
      const auto value = [&](int64_t r, int64_t j) { return between[r * w * channels + j]; };
      const auto drain = [&](int64_t r, const T* from, int64_t stride) {
        T* to = args.out[0].as<T>() + r * width;
        T sum = 0;
        for (int64_t j = 0; j < width; j++) {
          to[j] = from[j * stride];
          sum += std::abs(to[j]);
        }
        sums[r] = static_cast<double>(sum);
      };
      alongRows(alongX, rows, channels, between + rows * w * channels, value, drain);
      for (int64_t n = 0; n < images; n++) {
        double sum = 0;
        for (int64_t r = n * alongY.to; r < (n + 1) * alongY.to; r++) sum += sums[r];
        args.out[1].as<T>()[n] = static_cast<T>(sum / static_cast<double>(alongY.to * width));
      }
    };
    const int64_t elements = rows * w * channels + tilesOf<T>(rows) * tileOf<T>(w, y.dim(2), channels);
    return {run, static_cast<size_t>(rows) * sizeof(double) + static_cast<size_t>(elements) * sizeof(T)};
  });
}

// Through the transposed bands: of dy + dLevel sign(y) / (elements of an image), either of which may be absent.
Bound bindLowPassGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const Operand &y = node.inputs[0], &dx = node.outputs[0];
    const int64_t images = y.dim(0), h = y.dim(1), w = y.dim(2), channels = y.dim(3), rows = images * h;
    const int64_t width = dx.dim(2) * channels;
    const auto run = [=](const Args& args) {
      const Band<T> alongY(args.in[3], args.in[4], h), alongX(args.in[5], args.in[6], w);
      const T *low = args.in[0].as<const T>(), *dy = args.in[1].as<const T>(), *dLevel = args.in[2].as<const T>();
      T* between = reinterpret_cast<T*>(args.scratch);
      const auto value = [&](int64_t r, int64_t j) {
        const int64_t at = r * w * channels + j;
        T slope = dy ? dy[at] : T{0};
        if (dLevel) slope += dLevel[r / h] / static_cast<T>(h * w * channels) * T((low[at] > 0) - (low[at] < 0));
        return slope;
      };
      const auto drain = [&](int64_t r, const T* from, int64_t stride) {
        for (int64_t j = 0; j < width; j++) between[r * width + j] = from[j * stride];
      };
      alongRows(alongX, rows, channels, between + rows * width, value, drain);
      downColumns(alongY, images, width, between, args.out[0].as<T>());
    };
    const int64_t elements = rows * width + tilesOf<T>(rows) * tileOf<T>(w, dx.dim(2), channels);
    return {run, static_cast<size_t>(elements) * sizeof(T)};
  });
}

}  // namespace refl::REFL_ISA
