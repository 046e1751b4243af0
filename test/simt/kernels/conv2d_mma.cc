// Convolutions of bf16 and f16 on tensor cores and their gradients against float64: every tile, channels of all
// alignments, strides, paddings, divided sums.
#include "conv2d/conv2d_mma.h"

#include <cmath>

#include "epilogue.h"

using namespace harness;
using namespace refl::cuda;

namespace {

enum Pass { kForward, kGradInput, kGradWeight };

size_t weightSize(const ConvShape& s) {
  return static_cast<size_t>(s.outputs) * s.channels * s.kernelHeight * s.kernelWidth;
}

/** fn(x's element, y's, w's [O, kh, kw, C]) of each product. */
template <class Fn>
void forEach(const ConvShape& s, Fn&& fn) {
  for (int n = 0; n < s.images; ++n)
    for (int oy = 0; oy < s.outHeight; ++oy)
      for (int ox = 0; ox < s.outWidth; ++ox)
        for (int ky = 0; ky < s.kernelHeight; ++ky)
          for (int kx = 0; kx < s.kernelWidth; ++kx) {
            const int y = oy * s.strideY - s.top + ky, x = ox * s.strideX - s.left + kx;
            if (y < 0 || x < 0 || y >= s.height || x >= s.width) continue;
            const size_t in = ((static_cast<size_t>(n) * s.height + y) * s.width + x) * s.channels;
            const size_t out = ((static_cast<size_t>(n) * s.outHeight + oy) * s.outWidth + ox) * s.outputs;
            const size_t tap = static_cast<size_t>(ky) * s.kernelWidth + kx;
            for (int o = 0; o < s.outputs; ++o)
              for (int c = 0; c < s.channels; ++c)
                fn(in + c, out + o, (o * s.kernelHeight * s.kernelWidth + tap) * s.channels + c);
          }
}

/** From [O, kh, kw, C] to [C, kh, kw, O], or to [O, C, kh, kw]. */
std::vector<double> turned(const ConvShape& s, const std::vector<double>& w, bool channelsFirst) {
  const int taps = s.kernelHeight * s.kernelWidth;
  std::vector<double> to(w.size());
  for (int o = 0; o < s.outputs; ++o)
    for (int tap = 0; tap < taps; ++tap)
      for (int c = 0; c < s.channels; ++c) {
        const size_t at = channelsFirst ? (static_cast<size_t>(c) * taps + tap) * s.outputs + o
                                        : (static_cast<size_t>(o) * s.channels + c) * taps + tap;
        to[at] = w[(static_cast<size_t>(o) * taps + tap) * s.channels + c];
      }
  return to;
}

template <class T>
void compare(const ConvShape& s, Pass pass, const MmaPlan* plan, size_t skip, const Finishing& finishing = {}) {
  const size_t xSize = static_cast<size_t>(s.images) * s.height * s.width * s.channels,
               ySize = static_cast<size_t>(s.images) * s.outHeight * s.outWidth * s.outputs;
  const Input<T> x(uniform(xSize, -1, 1, 71), skip), y(uniform(ySize, -1, 1, 72), skip);
  const Input<T> w(uniform(weightSize(s), -1, 1, 73), skip), bias(uniform(s.outputs, -1, 1, 74));
  const std::vector<double> xs = x.values(), ys = y.values(), ws = w.values();
  const MmaSize size = pass == kForward     ? mmaSizeOfForward(s)
                       : pass == kGradInput ? mmaSizeOfGradInput(s)
                                            : mmaSizeOfGradWeight(s);
  const size_t bytes = plan                 ? partialBytes(size, plan->splits)
                       : pass == kForward   ? conv2dScratch<T>(s)
                       : pass == kGradInput ? conv2dGradInputScratch<T>(s)
                                            : conv2dGradWeightScratch<T>(s);
  const Input<float> scratch(std::vector<double>(bytes / sizeof(float), NAN));
  std::byte* room = reinterpret_cast<std::byte*>(scratch.data());

  const size_t columns = pass == kForward ? s.outputs : s.channels;
  const size_t resultSize = pass == kForward ? ySize : pass == kGradInput ? xSize : weightSize(s);
  const Finisher<T> finisher(finishing, static_cast<int>(resultSize / (columns ? columns : 1)),
                             static_cast<int>(columns), skip);
  const Epilogue& epilogue = finisher.epilogue();
  std::vector<double> exact, naive, actual;
  // run(out) writes the result, of T or of float.
  const auto finished = [&](const auto& run) {
    if (finishing.toFloat) {
      Output<float> out(resultSize, skip);
      check(run(reinterpret_cast<T*>(out.data())));
      actual = out.values();
    } else {
      Output<T> out(resultSize, skip);
      check(run(out.data()));
      actual = out.values();
    }
    for (size_t i = 0; i < exact.size(); ++i) {
      naive.push_back(finisher.naively(exact[i], i / columns, i % columns));
      exact[i] = finisher.of(exact[i], i / columns, i % columns);
    }
  };
  if (pass == kForward) {
    const std::vector<double> b = bias.values();
    exact.resize(ySize);
    for (size_t i = 0; i < ySize; ++i) exact[i] = b[i % s.outputs];
    forEach(s, [&](size_t in, size_t to, size_t weight) { exact[to] += xs[in] * ws[weight]; });
    finished([&](T* out) {
      return plan ? conv2dForwardMma<T>(s, *plan, x.data(), w.data(), bias.data(), out, room, nullptr, epilogue)
                  : conv2dForward<T>(s, x.data(), w.data(), bias.data(), out, room, nullptr, epilogue);
    });
  } else if (pass == kGradInput) {
    const Input<T> packed(turned(s, ws, true), skip);
    exact.resize(xSize);
    forEach(s, [&](size_t in, size_t from, size_t weight) { exact[in] += ys[from] * ws[weight]; });
    finished([&](T* out) {
      return plan ? conv2dGradInputMma<T>(s, *plan, y.data(), packed.data(), out, room, nullptr, epilogue)
                  : conv2dGradInput<T>(s, y.data(), packed.data(), out, room, nullptr, epilogue);
    });
  } else {
    std::vector<double> sums(ws.size());
    forEach(s, [&](size_t in, size_t from, size_t weight) { sums[weight] += ys[from] * xs[in]; });
    exact = turned(s, sums, false);
    finished([&](T* out) {
      return plan ? conv2dGradWeightMma<T>(s, *plan, x.data(), y.data(), out, room, nullptr, finishing.toFloat)
                  : conv2dGradWeight<T>(s, x.data(), y.data(), out, room, nullptr, finishing.toFloat);
    });
  }
  for (size_t i = 0; i < actual.size(); ++i)
    if (!std::isfinite(actual[i]) || rounded<T>(actual[i]) != actual[i])
      fail("element %zu is %.9g, which T does not hold", i, actual[i]);
  expectNoWorse(actual, exact, naive, 2, "the result");
}

/** A NaN in the image reaches the results whose taps lie on it and no others, not even by a product with zero. */
void nanStays() {
  const ConvShape s = {1, 3, 4, 8, 3, 3, 8, 1, 2, 1, 1, 0, 0};
  std::vector<double> values = uniform(3 * 4 * 8, -1, 1, 75);
  values[(1 * 4 + 2) * 8] = NAN;
  const Input<bf16> x(values), w(uniform(weightSize(s), -1, 1, 76));
  Output<bf16> y(3 * 3 * 8);
  check(conv2dForward<bf16>(s, x.data(), w.data(), nullptr, y.data(), nullptr, nullptr));
  const std::vector<double> found = y.values();
  for (size_t i = 0; i < found.size(); ++i) {
    const size_t pixel = i / 8, line = pixel / 3, column = pixel % 3;
    const bool reached = line == 1 && column >= 1;
    if (std::isnan(found[i]) != reached) fail("element %zu is %g", i, found[i]);
  }
}

struct Kernel {
  int height, width;
  int strideY = 1, strideX = 1;
  int top = 0, left = 0, bottom = 0, right = 0;
};

ConvShape shapeOf(int images, int height, int width, int channels, int outputs, const Kernel& k) {
  return {images,
          height,
          width,
          channels,
          (height + k.top + k.bottom - k.height) / k.strideY + 1,
          (width + k.left + k.right - k.width) / k.strideX + 1,
          outputs,
          k.height,
          k.width,
          k.strideY,
          k.strideX,
          k.top,
          k.left};
}

void add(const std::string& name, const ConvShape& s, const MmaPlan* plan = nullptr, size_t skip = 0) {
  const MmaPlan copy = plan ? *plan : MmaPlan{};
  const bool given = plan;
  const struct {
    const char* name;
    Pass pass;
  } passes[] = {{"", kForward}, {", input's gradient", kGradInput}, {", weight's gradient", kGradWeight}};
  for (const auto& [suffix, pass] : passes) {
    addCase("bf16, " + name + suffix, [=, p = pass] { compare<bf16>(s, p, given ? &copy : nullptr, skip); });
    addCase("f16, " + name + suffix, [=, p = pass] { compare<f16>(s, p, given ? &copy : nullptr, skip); });
  }
}

const bool added = [] {
  const Kernel same = {3, 3, 1, 1, 1, 1, 1, 1}, half = {3, 3, 2, 2, 0, 0, 1, 1};
  const MmaPlan large = {MmaTile::large, 1}, middle = {MmaTile::middle, 1}, small = {MmaTile::small, 1};
  const MmaPlan parts = {MmaTile::small, 3}, largeParts = {MmaTile::large, 2};
  add("3x3, 128 x 128", shapeOf(1, 12, 13, 40, 72, same), &large);
  add("3x3, 128 x 64", shapeOf(3, 7, 9, 16, 40, same), &middle);
  add("3x3, 64 x 64", shapeOf(1, 9, 8, 8, 16, same), &small);
  add("3x3, 128 x 128, 2 parts", shapeOf(1, 6, 5, 64, 72, same), &largeParts);
  add("3x3, 64 x 64, 3 parts", shapeOf(1, 9, 8, 24, 20, same), &parts);
  add("3x3, stride 2", shapeOf(2, 9, 10, 16, 24, half), &small);
  add("3x3, stride 2, 3 parts", shapeOf(1, 10, 9, 16, 24, half), &parts);
  add("3x3, stride 2, an odd image", shapeOf(1, 9, 7, 5, 33, {3, 3, 2, 2, 1, 1, 1, 1}));
  add("of 3 channels", shapeOf(2, 7, 9, 3, 5, same));
  add("of 4 channels", shapeOf(1, 8, 8, 4, 12, same));
  add("of 6 channels", shapeOf(1, 8, 5, 6, 10, same));
  add("of 8 channels to 3", shapeOf(1, 8, 5, 8, 3, same));
  add("of 3 channels to 8", shapeOf(1, 8, 5, 3, 8, same));
  add("of one channel to one", shapeOf(1, 5, 5, 1, 1, {3, 3}));
  add("1x1", shapeOf(2, 3, 5, 17, 20, {1, 1}));
  add("1x1, wide", shapeOf(2, 5, 7, 72, 80, {1, 1}));
  add("1x1, stride 2", shapeOf(1, 5, 6, 6, 4, {1, 1, 2, 2}));
  add("patches", shapeOf(1, 28, 14, 3, 8, {7, 7, 7, 7}));
  add("patches, not to the edge", shapeOf(1, 9, 11, 8, 16, {4, 4, 4, 4}));
  add("strides and paddings all different", shapeOf(2, 6, 11, 8, 8, {5, 3, 2, 3, 2, 1, 0, 3}));
  add("a stride beyond the kernel", shapeOf(1, 7, 8, 2, 3, {2, 2, 3, 4}));
  add("a stride beyond the image", shapeOf(1, 2, 3, 8, 8, {1, 2, 3, 5}));
  add("padding beyond the kernel", shapeOf(1, 2, 3, 4, 2, {2, 2, 1, 1, 3, 3, 3, 3}));
  add("a kernel as large as the image", shapeOf(2, 4, 3, 6, 9, {4, 3}));
  add("no images", shapeOf(0, 4, 4, 8, 8, same));
  add("no channels", shapeOf(1, 4, 4, 0, 8, same));
  add("no outputs", shapeOf(1, 4, 4, 8, 0, same));
  add("misaligned", shapeOf(1, 5, 6, 16, 24, same), &parts, 1);
  add("misaligned by 4 bytes", shapeOf(1, 5, 6, 16, 24, same), &small, 2);
  add("misaligned by 8 bytes", shapeOf(1, 5, 6, 16, 24, same), &small, 4);
  addCase("bf16, a NaN", nanStays);
  // Images of 9 x 10 pixels both ways, of which 15 share a row of an operand.
  int number = 0;
  for (const Finishing& finishing : finishings(15, 180)) {
    const std::string name = "finished " + std::to_string(++number);
    for (const Pass pass : {kForward, kGradInput}) {
      const std::string full = name + (pass == kForward ? "" : ", input's gradient");
      const auto with = [=](int channels, int outputs, const MmaPlan& plan, size_t skip) {
        compare<bf16>(shapeOf(2, 9, 10, channels, outputs, same), pass, &plan, skip, finishing);
      };
      addCase(full, [=] { with(16, 24, number % 2 ? large : middle, 0); });
      addCase(full + ", in parts", [=] { with(16, 24, parts, 0); });
      addCase(full + ", odd channels", [=] { with(5, 7, small, 1); });
    }
  }
  addCase("bf16, weight's gradient, to float", [=] {
    compare<bf16>(shapeOf(1, 9, 8, 24, 20, same), kGradWeight, &parts, 0, {{}, true});
  });
  addCase("f16, weight's gradient, to float, misaligned", [=] {
    compare<f16>(shapeOf(1, 5, 6, 5, 7, half), kGradWeight, nullptr, 1, {{}, true});
  });
  addCase("f16, finished, stride 2, input's gradient", [=] {
    compare<f16>(shapeOf(2, 9, 10, 16, 24, half), kGradInput, &small, 0, {{{Code::kAdd, 1, 1}, {Code::kMul, 10}}});
  });
  add("8x8 of a chosen plan", shapeOf(1, 8, 8, 64, 40, same));
  return true;
}();

}  // namespace
