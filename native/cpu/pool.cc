// Pooling of NHWC images, split over output rows; the channels of a pixel are the vector axis. Each pixel is read
// kh*kw / (sh*sw) times, from cache after the first, and each output written once: bound by memory. Sums are in the
// element type, at most kh*kw terms long.
#include <limits>

#include "cpu/support.h"

namespace refl::REFL_ISA {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread of their own
constexpr int64_t kTile = 64;        // channels worked on together while their running maxima stay in registers or L1

struct Window {
  int64_t kh, kw, sh, sw, top, left;
  int64_t h, w, oh, ow, c;  // pixels before and after pooling, channels

  Window(const NodeSpec& node, const Shape& full, const Shape& pooled)
      : h(full[1]), w(full[2]), oh(pooled[1]), ow(pooled[2]), c(full[3]) {
    const auto kernel = node.integers("kernel"), stride = node.integers("stride");
    kh = kernel[0], kw = kernel[1], sh = stride[0], sw = stride[1], top = 0, left = 0;
  }
  void setPadding(const std::vector<int64_t>& padding) { top = padding[0], left = padding[1]; }

  // The input rows of output row y, and the columns of output column x, inside the image.
  int64_t y0(int64_t y) const { return std::max<int64_t>(0, y * sh - top); }
  int64_t y1(int64_t y) const { return std::min(h, y * sh - top + kh); }
  int64_t x0(int64_t x) const { return std::max<int64_t>(0, x * sw - left); }
  int64_t x1(int64_t x) const { return std::min(w, x * sw - left + kw); }
  // The output rows whose window holds input row y.
  int64_t firstRow(int64_t y) const { return y + top < kh ? 0 : (y + top - kh) / sh + 1; }
  int64_t lastRow(int64_t y) const { return std::min(oh - 1, (y + top) / sh); }
  int64_t firstColumn(int64_t x) const { return x + left < kw ? 0 : (x + left - kw) / sw + 1; }
  int64_t lastColumn(int64_t x) const { return std::min(ow - 1, (x + left) / sw); }
};

template <class T>
void addTo(T* __restrict sum, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += x[i];
}

template <class T>
void scaleBy(T* x, T factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

template <class T>
Bound bindAvg(const NodeSpec& node) {
  const Window win(node, node.inputs[0].shape, node.outputs[0].shape);
  return {[win, rows = node.outputs[0].dim(0) * win.oh](const Args& args) {
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    const T share = T{1} / static_cast<T>(win.kh * win.kw);
    parallelFor(rows, kGrain / (win.ow * win.c * win.kh * win.kw + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / win.oh, oy = i - n * win.oh;
        const T* image = x + n * win.h * win.w * win.c;
        for (int64_t ox = 0; ox < win.ow; ++ox) {
          T* out = y + (i * win.ow + ox) * win.c;
          std::fill_n(out, win.c, T{0});
          for (int64_t iy = win.y0(oy); iy < win.y1(oy); ++iy) {
            for (int64_t ix = win.x0(ox); ix < win.x1(ox); ++ix) addTo(out, image + (iy * win.w + ix) * win.c, win.c);
          }
          scaleBy(out, share, win.c);
        }
      }
    });
  }};
}

// Gathers: each dx pixel adds up the windows that hold it, in reading order.
template <class T>
Bound bindAvgGrad(const NodeSpec& node) {
  const Window win(node, node.outputs[0].shape, node.inputs[0].shape);
  return {[win, rows = node.outputs[0].dim(0) * win.h](const Args& args) {
    const T* dy = args.in[0].as<const T>();
    T* dx = args.out[0].as<T>();
    const T share = T{1} / static_cast<T>(win.kh * win.kw);
    parallelFor(rows, kGrain / (win.w * win.c + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / win.h, iy = i - n * win.h;
        const T* grads = dy + n * win.oh * win.ow * win.c;
        for (int64_t ix = 0; ix < win.w; ++ix) {
          T* out = dx + (i * win.w + ix) * win.c;
          std::fill_n(out, win.c, T{0});
          for (int64_t oy = win.firstRow(iy); oy <= win.lastRow(iy); ++oy) {
            for (int64_t ox = win.firstColumn(ix); ox <= win.lastColumn(ix); ++ox) {
              addTo(out, grads + (oy * win.ow + ox) * win.c, win.c);
            }
          }
          scaleBy(out, share, win.c);
        }
      }
    });
  }};
}

// True where v takes the place of the running maximum: larger, or NaN. A maximum that is NaN stays.
template <class T>
bool beats(T v, T best) {
  return v > best || v != v;
}

template <class T>
Bound bindMax(const NodeSpec& node) {
  Window win(node, node.inputs[0].shape, node.outputs[0].shape);
  win.setPadding(node.integers("padding"));
  return {[win, rows = node.outputs[0].dim(0) * win.oh](const Args& args) {
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    parallelFor(rows, kGrain / (win.ow * win.c * win.kh * win.kw + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / win.oh, oy = i - n * win.oh;
        const T* image = x + n * win.h * win.w * win.c;
        for (int64_t ox = 0; ox < win.ow; ++ox) {
          T* __restrict best = y + (i * win.ow + ox) * win.c;
          std::fill_n(best, win.c, -std::numeric_limits<T>::infinity());
          for (int64_t iy = win.y0(oy); iy < win.y1(oy); ++iy) {
            for (int64_t ix = win.x0(ox); ix < win.x1(ox); ++ix) {
              const T* __restrict v = image + (iy * win.w + ix) * win.c;
              for (int64_t c = 0; c < win.c; ++c) best[c] = beats(v[c], best[c]) ? v[c] : best[c];
            }
          }
        }
      }
    });
  }};
}

// A thread owns a band of dx rows. It finds the winners of every window that reaches into the band (those on its edge
// are searched by both neighbours) and adds dy to the winners inside, so the order of additions to a pixel is that of
// the windows whatever the bands are.
template <class T>
Bound bindMaxGrad(const NodeSpec& node) {
  Window win(node, node.inputs[0].shape, node.inputs[1].shape);
  win.setPadding(node.integers("padding"));
  return {[win, rows = node.outputs[0].dim(0) * win.h](const Args& args) {
    const T* x = args.in[0].as<const T>();
    const T* dy = args.in[1].as<const T>();
    T* dx = args.out[0].as<T>();
    // Within one image: rows [top, bottom) of dx, channels [c0, c0 + count) of the window (oy, ox).
    const auto addWindow = [&](int64_t n, int64_t oy, int64_t ox, int64_t top, int64_t bottom, int64_t c0,
                               int64_t count) {
      const int64_t image = n * win.h * win.w * win.c + c0;
      T best[kTile], place[kTile];
      std::fill_n(best, count, -std::numeric_limits<T>::infinity());
      std::fill_n(place, count, T{0});  // window positions counted in T, so that both arrays have one vector width
      T at = 0;
      for (int64_t iy = win.y0(oy); iy < win.y1(oy); ++iy) {
        for (int64_t ix = win.x0(ox); ix < win.x1(ox); ++ix, ++at) {
          const T* v = x + image + (iy * win.w + ix) * win.c;
          for (int64_t c = 0; c < count; ++c) {
            const bool wins = beats(v[c], best[c]);
            best[c] = wins ? v[c] : best[c];
            place[c] = wins ? at : place[c];
          }
        }
      }
      const T* grad = dy + ((n * win.oh + oy) * win.ow + ox) * win.c + c0;
      at = 0;
      for (int64_t iy = win.y0(oy); iy < win.y1(oy); ++iy) {
        for (int64_t ix = win.x0(ox); ix < win.x1(ox); ++ix, ++at) {
          if (iy < top || iy >= bottom) continue;
          T* out = dx + image + (iy * win.w + ix) * win.c;
          for (int64_t c = 0; c < count; ++c) out[c] += place[c] == at ? grad[c] : T{0};
        }
      }
    };
    parallelFor(rows, kGrain / (win.w * win.c + 1) + 1, [&](int64_t begin, int64_t end) {
      std::fill(dx + begin * win.w * win.c, dx + end * win.w * win.c, T{0});
      for (int64_t n = begin / win.h; n * win.h < end; ++n) {
        const int64_t top = std::max<int64_t>(0, begin - n * win.h), bottom = std::min(win.h, end - n * win.h);
        for (int64_t oy = win.firstRow(top); oy <= win.lastRow(bottom - 1); ++oy) {
          for (int64_t ox = 0; ox < win.ow; ++ox) {
            for (int64_t c0 = 0; c0 < win.c; c0 += kTile)
              addWindow(n, oy, ox, top, bottom, c0, std::min(kTile, win.c - c0));
          }
        }
      }
    });
  }};
}

}  // namespace

#define REFL_BIND(name, impl)                                                                         \
  Bound name(const NodeSpec& node) {                                                                  \
    return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return impl<decltype(tag)>(node); }); \
  }
REFL_BIND(bindAvgPool2d, bindAvg)
REFL_BIND(bindAvgPool2dGrad, bindAvgGrad)
REFL_BIND(bindMaxPool2d, bindMax)
REFL_BIND(bindMaxPool2dGrad, bindMaxGrad)
#undef REFL_BIND

}  // namespace refl::REFL_ISA
