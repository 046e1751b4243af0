// Convolutions in float32 and of operands rounded to tf32, against float64, and the weights packed for them in all
// types: strides and paddings of every kind, odd channels and whole vectors of them, every tile.
#include <cmath>

#include "conv2d/conv2d.h"
#include "epilogue.h"
#include "harness.h"
#include "rounded.h"

using namespace harness;
using refl::cuda::ConvShape;

namespace {

struct Extents {
  int images, height, width, channels, outputs, kernelHeight, kernelWidth, strideY, strideX, top, left, bottom, right;
};

ConvShape shapeOf(const Extents& e) {
  return {e.images,
          e.height,
          e.width,
          e.channels,
          (e.height + e.top + e.bottom - e.kernelHeight) / e.strideY + 1,
          (e.width + e.left + e.right - e.kernelWidth) / e.strideX + 1,
          e.outputs,
          e.kernelHeight,
          e.kernelWidth,
          e.strideY,
          e.strideX,
          e.top,
          e.left};
}

/** fn(index in y without the output, index in x without the channel, tap) for each pair of pixels that meet. */
template <class Fn>
void meetings(const ConvShape& s, Fn&& fn) {
  for (int n = 0; n < s.images; ++n)
    for (int oy = 0; oy < s.outHeight; ++oy)
      for (int ox = 0; ox < s.outWidth; ++ox)
        for (int ky = 0; ky < s.kernelHeight; ++ky)
          for (int kx = 0; kx < s.kernelWidth; ++kx) {
            const int y = oy * s.strideY - s.top + ky, x = ox * s.strideX - s.left + kx;
            if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
            fn((static_cast<size_t>(n) * s.outHeight + oy) * s.outWidth + ox,
               (static_cast<size_t>(n) * s.height + y) * s.width + x, ky * s.kernelWidth + kx);
          }
}

std::byte* bytes(const Input<float>& scratch) { return reinterpret_cast<std::byte*>(scratch.data()); }

Input<float> scratchOf(size_t size) { return Input<float>(std::vector<double>(size / sizeof(float), NAN)); }

void compare(const Extents& e, bool tf32, size_t skip, double low, const Finishing& finishing = {}) {
  ConvShape s = shapeOf(e);
  s.tf32 = tf32;
  const size_t taps = static_cast<size_t>(s.kernelHeight) * s.kernelWidth, c = s.channels, o = s.outputs;
  const size_t pixels = static_cast<size_t>(s.images) * s.height * s.width,
               outPixels = static_cast<size_t>(s.images) * s.outHeight * s.outWidth;
  const Input<float> x(uniform(pixels * c, low, 1, 71), skip), dy(uniform(outPixels * o, low, 1, 72), skip);
  const Input<float> weight(uniform(o * c * taps, low, 1, 73)), bias(uniform(o, -1, 1, 74));
  Output<float> forward(o * c * taps, skip), backward(o * c * taps, skip);
  Output<float> y(outPixels * o, skip), dx(pixels * c, skip), dw(o * c * taps, skip);
  check(refl::cuda::packConvWeight(s, weight.data(), forward.data(), nullptr));
  check(refl::cuda::packConvWeightForGradInput(s, weight.data(), backward.data(), nullptr));
  const Input<float> one = scratchOf(refl::cuda::conv2dScratch<float>(s)),
                     two = scratchOf(refl::cuda::conv2dGradInputScratch<float>(s)),
                     three = scratchOf(refl::cuda::conv2dGradWeightScratch<float>(s));
  const Finisher<float> finishY(finishing, static_cast<int>(outPixels), s.outputs, skip),
      finishDx(finishing, static_cast<int>(pixels), s.channels, skip);
  check(refl::cuda::conv2dForward<float>(s, x.data(), forward.data(), bias.data(), y.data(), bytes(one), nullptr,
                                         finishY.epilogue()));
  check(refl::cuda::conv2dGradInput<float>(s, dy.data(), backward.data(), dx.data(), bytes(two), nullptr,
                                           finishDx.epilogue()));
  check(refl::cuda::conv2dGradWeight<float>(s, x.data(), dy.data(), dw.data(), bytes(three), nullptr));

  const std::vector<double> xs = multiplied(x, tf32), dys = multiplied(dy, tf32), ws = multiplied(weight, tf32),
                            biases = bias.values();
  std::vector<double> exactY(y.size()), exactDx(dx.size()), exactDw(dw.size());
  for (size_t i = 0; i < exactY.size(); ++i) exactY[i] = biases[i % o];
  meetings(s, [&](size_t to, size_t from, size_t tap) {
    for (size_t j = 0; j < o; ++j)
      for (size_t i = 0; i < c; ++i) {
        const size_t at = (j * c + i) * taps + tap;
        exactY[to * o + j] += xs[from * c + i] * ws[at];
        exactDx[from * c + i] += dys[to * o + j] * ws[at];
        exactDw[at] += xs[from * c + i] * dys[to * o + j];
      }
  });
  for (size_t i = 0; i < exactY.size(); ++i) exactY[i] = finishY.of(exactY[i], i / o, i % o);
  for (size_t i = 0; i < exactDx.size(); ++i) exactDx[i] = finishDx.of(exactDx[i], i / c, i % c);
  expectClose(y.values(), exactY, 1e-5, "y");
  expectClose(dx.values(), exactDx, 1e-5, "dx");
  expectClose(dw.values(), exactDw, 1e-5, "dw");
}

template <class T>
void pack(int outputs, int channels, int kernelHeight, int kernelWidth) {
  ConvShape s = {};
  s.outputs = outputs;
  s.channels = channels;
  s.kernelHeight = kernelHeight;
  s.kernelWidth = kernelWidth;
  const size_t taps = static_cast<size_t>(kernelHeight) * kernelWidth, c = channels, o = outputs;
  const Input<T> weight(uniform(o * c * taps, -1, 1, 75));
  Output<T> forward(o * c * taps), backward(o * c * taps);
  check(refl::cuda::packConvWeight(s, weight.data(), forward.data(), nullptr));
  check(refl::cuda::packConvWeightForGradInput(s, weight.data(), backward.data(), nullptr));
  for (size_t j = 0; j < o; ++j)
    for (size_t i = 0; i < c; ++i)
      for (size_t t = 0; t < taps; ++t) {
        const double value = simt::toFloat(weight[(j * c + i) * taps + t]);
        if (simt::toFloat(forward[(j * taps + t) * c + i]) != value) fail("output %zu, channel %zu, tap %zu", j, i, t);
        if (simt::toFloat(backward[(i * taps + t) * o + j]) != value) fail("gradient: %zu, %zu, %zu", j, i, t);
      }
}

const bool added = [] {
  const struct {
    const char* name;
    Extents extents;
    size_t skip = 0;
    double low = -1;
  } all[] = {
      {"3x3 of 8 channels", {1, 6, 5, 8, 12, 3, 3, 1, 1, 1, 1, 1, 1}},
      {"3x3 of 3 channels, a batch", {3, 7, 9, 3, 5, 3, 3, 1, 1, 1, 1, 1, 1}},
      {"3x3 of one channel to one", {1, 5, 5, 1, 1, 3, 3, 1, 1, 0, 0, 0, 0}},
      {"3x3 of 4 channels, stride 2, the padding at the end", {2, 8, 6, 4, 8, 3, 3, 2, 2, 0, 0, 1, 1}},
      {"3x3 of 5 channels to 33, stride 2", {1, 9, 7, 5, 33, 3, 3, 2, 2, 1, 1, 1, 1}},
      {"3x3 of 40 channels to 36", {1, 5, 4, 40, 36, 3, 3, 1, 1, 1, 1, 1, 1}},
      {"3x3 of 70 channels to 67", {1, 4, 5, 70, 67, 3, 3, 1, 1, 1, 1, 1, 1}},
      {"1x1", {2, 3, 5, 17, 20, 1, 1, 1, 1, 0, 0, 0, 0}},
      {"1x1, stride 2", {1, 5, 6, 6, 4, 1, 1, 2, 2, 0, 0, 0, 0}},
      {"14x14 patches", {1, 28, 42, 3, 5, 14, 14, 14, 14, 0, 0, 0, 0}},
      {"14x14 patches, not to the edge", {1, 29, 31, 2, 3, 14, 14, 14, 14, 0, 0, 0, 0}},
      {"5x3, strides and paddings all different", {2, 6, 11, 3, 4, 5, 3, 2, 3, 2, 1, 0, 3}},
      {"a stride beyond the kernel", {1, 7, 8, 2, 3, 2, 2, 3, 4, 0, 0, 0, 0}},
      {"a stride beyond the image", {1, 2, 3, 2, 3, 1, 2, 5, 7, 1, 2, 3, 4}},
      {"padding beyond the kernel", {1, 2, 3, 4, 2, 2, 2, 1, 1, 3, 3, 3, 3}},
      {"a kernel as large as the image", {2, 4, 3, 6, 9, 4, 3, 1, 1, 0, 0, 0, 0}},
      {"many pixels, few channels", {1, 20, 30, 3, 4, 3, 3, 1, 1, 1, 1, 1, 1}},
      {"few pixels, many channels", {1, 2, 2, 4, 300, 3, 3, 1, 1, 1, 1, 1, 1}},
      {"large tiles", {1, 96, 95, 1, 65, 2, 1, 1, 1, 1, 0, 0, 0}},
      {"large tiles, 16 bytes of channels", {1, 96, 95, 4, 68, 1, 2, 1, 1, 0, 0, 0, 1}},
      {"misaligned", {1, 6, 5, 8, 12, 3, 3, 1, 1, 1, 1, 1, 1}, 1},
      {"a split depth", {1, 2, 2, 128, 128, 3, 3, 1, 1, 1, 1, 1, 1}},
      {"split pixels of one channel", {1, 30, 30, 1, 7, 3, 3, 1, 1, 0, 0, 0, 0}, 0, 0},
  };
  for (const auto& it : all) {
    addCase(it.name, [=] { compare(it.extents, false, it.skip, it.low); });
    addCase(std::string("tf32, ") + it.name, [=] { compare(it.extents, true, it.skip, it.low); });
  }
  // Images of 9 x 10 pixels both ways, each with its row of an operand, or 6 of them.
  int number = 0;
  for (const Finishing& finishing : finishings(15, 180)) {
    const std::string name = "finished " + std::to_string(++number);
    addCase(name, [=] { compare({2, 9, 10, 12, 20, 3, 3, 1, 1, 1, 1, 1, 1}, number % 2, 0, -1, finishing); });
    addCase(name + ", odd channels", [=] {
      compare({2, 9, 10, 5, 7, 3, 3, 1, 1, 1, 1, 1, 1}, false, 1, -1, finishing);
    });
  }
  addCase("finished, a split depth", [=] {
    compare({1, 2, 2, 128, 128, 3, 3, 1, 1, 1, 1, 1, 1}, false, 0, -1, finishings(2, 4)[1]);
  });
  addCase("finished, stride 2", [=] {
    compare({2, 8, 6, 4, 8, 3, 3, 2, 2, 0, 0, 1, 1}, false, 0, -1, {{{Code::kAdd, 1, 1}, {Code::kAdd, 6, 1}}});
  });
  const auto types = [](const char* name, int o, int c, int kh, int kw) {
    addCase(std::string("pack f32, ") + name, [=] { pack<float>(o, c, kh, kw); });
    addCase(std::string("pack bf16, ") + name, [=] { pack<bf16>(o, c, kh, kw); });
    addCase(std::string("pack f16, ") + name, [=] { pack<f16>(o, c, kh, kw); });
  };
  types("3x3", 67, 65, 3, 3);
  types("more taps than a tile", 3, 5, 7, 5);
  types("one channel", 5, 1, 2, 2);
  types("nothing", 0, 3, 2, 2);
  return true;
}();

}  // namespace
