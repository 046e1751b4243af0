// Convolutions of bf16 and f16 and their gradients as implicit products on tensor cores; gemm/core_mma.h says how those
// run. 2 N OH OW O C kh kw operations each.
//
//   y[pixel, o]       = sum over (tap, c)  x[pixel under the tap, c] * w[o, (tap, c)]
//   dx[pixel, c]      = sum over (tap, o)  dy[pixel over the tap, o] * w[c, (tap, o)]
//   dw[o, (tap, c)]   = sum over pixels    dy[pixel, o] * x[pixel under the tap, c]
//
// The image's patches are never written down: their loader turns a row and a column into an address, or into zeros
// outside the image. Channels that 8 divides are read 16 bytes at once; a tile then reads each of its pixels once for
// each tap, mostly from L1 and L2.
//
// The input's gradient with a stride s falls into s x s phases of pixels: those of one phase are reached by the same
// taps, every s-th of the kernel, and are a convolution of stride 1 by themselves. All phases are one launch, and no
// product with a zero between pixels is done.
//
// The weight's gradient always goes through float32 partial sums [splits, O, kh, kw, C], that a second kernel adds and
// writes as [O, C, kh, kw].
#include "conv2d/conv2d_mma.h"
#include "gemm/launch_mma.h"

namespace refl::cuda {
namespace {

using namespace core;

/** Divides 0 <= n < 2^31 by a number known on the host, by one multiplication. */
struct Divider {
  int divisor, shift = 31;
  uint32_t factor;  // 2^shift / divisor, rounded up

  explicit Divider(int64_t by = 1) : divisor(static_cast<int>(by > 1 ? by : 1)) {
    while ((int64_t{1} << (shift - 31)) < divisor) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << shift) + divisor - 1) / divisor);
  }
  SIMT_DEVICE int quotient(int n) const { return static_cast<int>((static_cast<uint64_t>(n) * factor) >> shift); }
};

/** The taps of a kernel's row, and channels within a tap. */
struct Taps {
  int columns;  // taps * channels
  Divider channels, perLine;

  Taps(int lines, int perLine, int channels)
      : columns(lines * perLine * channels), channels(channels), perLine(perLine) {}
  struct At {
    int y, x, channel;
  };
  SIMT_DEVICE At at(int column) const {
    const int tap = channels.quotient(column), y = perLine.quotient(tap);
    return {y, tap - y * perLine.divisor, column - tap * channels.divisor};
  }
};

constexpr int kOutside = -(1 << 30);

/** Patches of images [N, height, width, channels]: a row for each of [N, lines, perLine] pixels of the result, a column
 * for each tap and channel. */
template <class T>
struct Patches {
  using Element = T;
  // The pixel under the first tap, and how far a tap is from the first; both with the elements to there. A sum of these
  // lies in the image or is of no use, so it may wrap.
  struct Row {
    int y, x;
    unsigned element;
  };
  using Column = Row;

  const T* images;
  int height, width, rows, vector;
  int strideY, strideX, firstY, firstX;
  int direction;  // pixels from tap to tap, 1 or -1
  Taps taps;
  Divider perImage, perLine;

  SIMT_DEVICE Row row(int r) const {
    const int image = perImage.quotient(r), pixel = r - image * perImage.divisor, line = perLine.quotient(pixel);
    const int y = line * strideY + firstY, x = (pixel - line * perLine.divisor) * strideX + firstX;
    const auto whole = static_cast<unsigned>(image) * height;
    return {r < rows ? y : kOutside, x, ((whole + y) * width + x) * taps.channels.divisor};
  }
  SIMT_DEVICE Column column(int c) const {
    const auto at = taps.at(c);
    const int y = at.y * direction, x = at.x * direction;
    const auto pixel = static_cast<unsigned>(y) * width + x;
    return {c < taps.columns ? y : kOutside, x, pixel * taps.channels.divisor + at.channel};
  }
  SIMT_DEVICE Span<T> span(const Row& row, const Column& column) const {
    const auto y = static_cast<unsigned>(row.y + column.y), x = static_cast<unsigned>(row.x + column.x);
    if (y >= static_cast<unsigned>(height) || x >= static_cast<unsigned>(width)) return {images, 0};
    return {images + (row.element + column.element), vector};
  }
};

/** Weights [rows, kh, kw, channels] of some taps: every strideY-th line and strideX-th column of the kernel. */
template <class T>
struct PhaseWeights {
  using Element = T;
  using Row = int;     // its first element, or -1
  using Column = int;  // likewise, from the row's
  const T* weights;
  int rows, perRow, vector;
  int first, lineStep, tapStep;  // in elements
  Taps taps;

  SIMT_DEVICE Row row(int r) const { return r < rows ? r * perRow : -1; }
  SIMT_DEVICE Column column(int c) const {
    const auto at = taps.at(c);
    return c < taps.columns ? first + at.y * lineStep + at.x * tapStep + at.channel : -1;
  }
  SIMT_DEVICE Span<T> span(Row row, Column column) const {
    if (row < 0 || column < 0) return {weights, 0};
    return {weights + row + column, vector};
  }
};

template <class T>
struct Forward {
  using Element = T;
  static constexpr bool kSumInnerA = true, kSumInnerB = true, kOnlyPartial = false;
  Patches<T> patches;
  Matrix<T> weights;

  SIMT_DEVICE Patches<T> a(int) const { return patches; }
  SIMT_DEVICE Matrix<T> b(int) const { return weights; }
  SIMT_DEVICE int rows(int) const { return patches.rows; }
  SIMT_DEVICE int depth(int) const { return patches.taps.columns; }
  SIMT_DEVICE int64_t rowOf(int, int row) const { return row; }
  SIMT_DEVICE int64_t elementOf(int, int row) const { return static_cast<int64_t>(row) * weights.rows; }
};

/** One of the image's axes, cut into phases of every stride-th pixel from 0, 1, ... on. */
struct Phases {
  int size, kernel, stride, before, count;
  Divider pixels[2], taps[2];  // of a phase: without and with one more

  Phases(int size, int kernel, int stride, int before)
      : size(size),
        kernel(kernel),
        stride(stride),
        before(before),
        count(stride < size ? stride : size),
        pixels{Divider(size / stride), Divider(size / stride + 1)},
        taps{Divider(kernel / stride), Divider(kernel / stride + 1)} {}
  SIMT_DEVICE int firstTap(int phase) const { return (phase + before) % stride; }
  /** The pixel of the result that the first tap of the phase's first pixel comes from. */
  SIMT_DEVICE int firstPixel(int phase) const { return (phase + before) / stride; }
  SIMT_DEVICE int morePixels(int phase) const { return phase < size % stride; }
  SIMT_DEVICE int moreTaps(int phase) const { return firstTap(phase) < kernel % stride; }
  SIMT_DEVICE int pixelsOf(int phase) const { return size / stride + morePixels(phase); }
  SIMT_DEVICE int tapsOf(int phase) const { return kernel / stride + moreTaps(phase); }
};

template <class T>
struct GradInput {
  using Element = T;
  static constexpr bool kSumInnerA = true, kSumInnerB = true, kOnlyPartial = false;
  Patches<T> patches;       // of a phase without one more of anything
  PhaseWeights<T> weights;  // likewise
  Phases down, across;
  Divider perImage[2][2];
  int images, outputs, kernelWidth;

  SIMT_DEVICE int phaseY(int z) const { return z / across.count; }
  SIMT_DEVICE int phaseX(int z) const { return z % across.count; }
  SIMT_DEVICE Taps taps(int z) const {
    Taps of = patches.taps;
    of.columns = depth(z);
    of.perLine = across.taps[across.moreTaps(phaseX(z))];
    return of;
  }
  SIMT_DEVICE Patches<T> a(int z) const {
    const int y = phaseY(z), x = phaseX(z);
    Patches<T> of = patches;
    of.rows = rows(z);
    of.firstY = down.firstPixel(y);
    of.firstX = across.firstPixel(x);
    of.taps = taps(z);
    of.perImage = perImage[down.morePixels(y)][across.morePixels(x)];
    of.perLine = across.pixels[across.morePixels(x)];
    return of;
  }
  SIMT_DEVICE PhaseWeights<T> b(int z) const {
    PhaseWeights<T> of = weights;
    of.taps = taps(z);
    of.first = (down.firstTap(phaseY(z)) * kernelWidth + across.firstTap(phaseX(z))) * outputs;
    return of;
  }
  SIMT_DEVICE int rows(int z) const { return images * down.pixelsOf(phaseY(z)) * across.pixelsOf(phaseX(z)); }
  SIMT_DEVICE int depth(int z) const { return down.tapsOf(phaseY(z)) * across.tapsOf(phaseX(z)) * outputs; }
  SIMT_DEVICE int64_t rowOf(int z, int row) const {
    const int y = phaseY(z), x = phaseX(z), moreY = down.morePixels(y), moreX = across.morePixels(x);
    const Divider &all = perImage[moreY][moreX], &perLine = across.pixels[moreX];
    const int image = all.quotient(row), pixel = row - image * all.divisor, line = perLine.quotient(pixel);
    const int64_t outLine = static_cast<int64_t>(image) * down.size + line * down.stride + y;
    return outLine * across.size + (pixel - line * perLine.divisor) * across.stride + x;
  }
  SIMT_DEVICE int64_t elementOf(int z, int row) const { return rowOf(z, row) * weights.rows; }
};

template <class T>
struct GradWeight {
  using Element = T;
  static constexpr bool kSumInnerA = false, kSumInnerB = false, kOnlyPartial = true;
  Matrix<T> dy;
  Patches<T> patches;

  SIMT_DEVICE Matrix<T> a(int) const { return dy; }
  SIMT_DEVICE Patches<T> b(int) const { return patches; }
  SIMT_DEVICE int rows(int) const { return dy.columns; }
  SIMT_DEVICE int depth(int) const { return dy.rows; }
  SIMT_DEVICE int64_t rowOf(int, int row) const { return row; }
};

// dw [outputs, channels, taps] = the sum of partial [splits, outputs, pitch of (taps, channels)], an element a thread.
// Neighbouring threads read addresses `channels` apart; the sectors' other elements are read by the same block.
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    sumWeightsKernel(const float* __restrict__ partial, int64_t partialSize, int splits, int pitch, int outputs,
                     int channels, int taps, bool toFloat, T* __restrict__ dw) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  const int perOutput = channels * taps;
  const int output = static_cast<int>(i / perOutput), at = static_cast<int>(i % perOutput);
  if (output >= outputs) return;
  const float* from = partial + static_cast<int64_t>(output) * pitch + at % taps * channels + at / taps;
  float sum = 0;
  for (int split = 0; split < splits; ++split) sum += from[split * partialSize];
  const T result = fromFloat<T>(sum);
  if (toFloat)
    reinterpret_cast<float*>(dw)[i] = simt::toFloat(result);
  else
    dw[i] = result;
}

template <class T>
Patches<T> patchesOf(const ConvShape& s, const T* x) {
  const int pixels = s.images * s.outHeight * s.outWidth;
  return {x,
          s.height,
          s.width,
          pixels,
          widthOf(x, s.channels),
          s.strideY,
          s.strideX,
          -s.top,
          -s.left,
          1,
          Taps(s.kernelHeight, s.kernelWidth, s.channels),
          Divider(static_cast<int64_t>(s.outHeight) * s.outWidth),
          Divider(s.outWidth)};
}

/** For [rows, columns] without gaps. */
template <class T>
Output<T> outputOf(T* c, const T* bias, int64_t rows, int columns, std::byte* partial, const Epilogue& epilogue) {
  const auto pitch = static_cast<int>(partialPitch(columns));
  return {c,       bias,  reinterpret_cast<float*>(partial), rows * pitch,
          columns, pitch, widthOf(c, columns) == 8,          quadsFit(epilogue, c, columns, 0),
          epilogue};
}

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

MmaSize mmaSizeOfForward(const ConvShape& s) {
  const int64_t pixels = static_cast<int64_t>(s.images) * s.outHeight * s.outWidth;
  return {1, pixels, s.outputs, static_cast<int64_t>(s.kernelHeight) * s.kernelWidth * s.channels};
}

MmaSize mmaSizeOfGradInput(const ConvShape& s) {
  const int64_t phasesY = s.strideY < s.height ? s.strideY : s.height,
                phasesX = s.strideX < s.width ? s.strideX : s.width;
  return {phasesY * phasesX, s.images * ceilDiv(s.height, s.strideY) * ceilDiv(s.width, s.strideX), s.channels,
          ceilDiv(s.kernelHeight, s.strideY) * ceilDiv(s.kernelWidth, s.strideX) * s.outputs};
}

MmaSize mmaSizeOfGradWeight(const ConvShape& s) {
  const MmaSize forward = mmaSizeOfForward(s);
  return {1, s.outputs, forward.depth, forward.rows, true};
}

template <class T>
cudaError_t conv2dForwardMma(const ConvShape& s, const MmaPlan& plan, const T* x, const T* packed, const T* bias, T* y,
                             std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue) {
  const MmaSize size = mmaSizeOfForward(s);
  if (size.rows * size.columns == 0) return cudaSuccess;
  const auto depth = static_cast<int>(size.depth);
  const Forward<T> problem = {patchesOf(s, x), {packed, s.outputs, depth, depth, widthOf(packed, depth)}};
  const bool wide = problem.patches.vector == 8 && problem.weights.vector == 8, split = plan.splits > 1;
  const Output<T> output = outputOf(y, bias, size.rows, s.outputs, split ? scratch : nullptr, epilogue);
  const cudaError_t error = launchMma(problem, size, plan, wide, output, stream);
  if (error != cudaSuccess || !split) return error;
  return sumPartials(output, plan.splits, problem.patches.rows, s.outputs, 0, stream);
}

template <class T>
cudaError_t conv2dGradInputMma(const ConvShape& s, const MmaPlan& plan, const T* dy, const T* packed, T* dx,
                               std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue) {
  const MmaSize size = mmaSizeOfGradInput(s);
  if (size.count * size.rows * size.columns == 0) return cudaSuccess;
  const int pixels = s.images * s.height * s.width, perWeight = s.kernelHeight * s.kernelWidth * s.outputs;
  const Phases down(s.height, s.kernelHeight, s.strideY, s.top), across(s.width, s.kernelWidth, s.strideX, s.left);
  const Taps none(0, 0, s.outputs);
  const Patches<T> patches = {dy, s.outHeight, s.outWidth, 0,        widthOf(dy, s.outputs), 1, 1, 0, 0,
                              -1, none,        Divider(),  Divider()};
  const PhaseWeights<T> weights = {packed,
                                   s.channels,
                                   perWeight,
                                   widthOf(packed, s.outputs),
                                   0,
                                   s.strideY * s.kernelWidth * s.outputs,
                                   s.strideX * s.outputs,
                                   none};
  const auto perImage = [&](int moreY, int moreX) {
    return Divider(static_cast<int64_t>(s.height / s.strideY + moreY) * (s.width / s.strideX + moreX));
  };
  const GradInput<T> problem = {
      patches,  weights,   down,         across, {{perImage(0, 0), perImage(0, 1)}, {perImage(1, 0), perImage(1, 1)}},
      s.images, s.outputs, s.kernelWidth};
  const bool wide = patches.vector == 8 && weights.vector == 8, split = plan.splits > 1;
  const Output<T> output = outputOf<T>(dx, nullptr, pixels, s.channels, split ? scratch : nullptr, epilogue);
  const cudaError_t error = launchMma(problem, size, plan, wide, output, stream);
  if (error != cudaSuccess || !split) return error;
  return sumPartials(output, plan.splits, pixels, s.channels, 0, stream);
}

template <class T>
cudaError_t conv2dGradWeightMma(const ConvShape& s, const MmaPlan& plan, const T* x, const T* dy, T* dw,
                                std::byte* scratch, cudaStream_t stream, bool toFloat) {
  const MmaSize size = mmaSizeOfGradWeight(s);
  if (size.rows * size.columns == 0) return cudaSuccess;
  const Patches<T> patches = patchesOf(s, x);
  const GradWeight<T> problem = {{dy, patches.rows, s.outputs, s.outputs, widthOf(dy, s.outputs)}, patches};
  const Output<T> output = outputOf<T>(nullptr, nullptr, s.outputs, static_cast<int>(size.columns), scratch, {});
  const cudaError_t error =
      launchMma(problem, size, plan, patches.vector == 8 && problem.dy.vector == 8, output, stream);
  if (error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(ceilDiv(size.rows * size.columns, kSumThreads));
  return launch<sumWeightsKernel<T>>({blocks, kSumThreads, 0, stream}, output.partial, output.partialSize, plan.splits,
                                     output.pitch, s.outputs, s.channels, s.kernelHeight * s.kernelWidth, toFloat, dw);
}

namespace {

size_t scratchOf(const MmaSize& size) { return partialBytes(size, planMma(size).splits); }

}  // namespace

template <class T>
size_t conv2dScratch(const ConvShape& shape) {
  return scratchOf(mmaSizeOfForward(shape));
}
template <class T>
size_t conv2dGradInputScratch(const ConvShape& shape) {
  return scratchOf(mmaSizeOfGradInput(shape));
}
template <class T>
size_t conv2dGradWeightScratch(const ConvShape& shape) {
  return scratchOf(mmaSizeOfGradWeight(shape));
}

template <class T>
cudaError_t conv2dForward(const ConvShape& shape, const T* x, const T* packed, const T* bias, T* y, std::byte* scratch,
                          cudaStream_t stream, const Epilogue& epilogue) {
  return conv2dForwardMma(shape, planMma(mmaSizeOfForward(shape)), x, packed, bias, y, scratch, stream, epilogue);
}
template <class T>
cudaError_t conv2dGradInput(const ConvShape& shape, const T* dy, const T* packed, T* dx, std::byte* scratch,
                            cudaStream_t stream, const Epilogue& epilogue) {
  return conv2dGradInputMma(shape, planMma(mmaSizeOfGradInput(shape)), dy, packed, dx, scratch, stream, epilogue);
}
template <class T>
cudaError_t conv2dGradWeight(const ConvShape& shape, const T* x, const T* dy, T* dw, std::byte* scratch,
                             cudaStream_t stream, bool toFloat) {
  return conv2dGradWeightMma(shape, planMma(mmaSizeOfGradWeight(shape)), x, dy, dw, scratch, stream, toFloat);
}

#define REFL_CONV2D_MMA(T)                                                                                         \
  template cudaError_t conv2dForwardMma(const ConvShape&, const MmaPlan&, const T*, const T*, const T*, T*,        \
                                        std::byte*, cudaStream_t, const Epilogue&);                                \
  template cudaError_t conv2dGradInputMma(const ConvShape&, const MmaPlan&, const T*, const T*, T*, std::byte*,    \
                                          cudaStream_t, const Epilogue&);                                          \
  template cudaError_t conv2dGradWeightMma(const ConvShape&, const MmaPlan&, const T*, const T*, T*, std::byte*,   \
                                           cudaStream_t, bool);                                                    \
  template size_t conv2dScratch<T>(const ConvShape&);                                                              \
  template size_t conv2dGradInputScratch<T>(const ConvShape&);                                                     \
  template size_t conv2dGradWeightScratch<T>(const ConvShape&);                                                    \
  template cudaError_t conv2dForward(const ConvShape&, const T*, const T*, const T*, T*, std::byte*, cudaStream_t, \
                                     const Epilogue&);                                                             \
  template cudaError_t conv2dGradInput(const ConvShape&, const T*, const T*, T*, std::byte*, cudaStream_t,         \
                                       const Epilogue&);                                                           \
  template cudaError_t conv2dGradWeight(const ConvShape&, const T*, const T*, T*, std::byte*, cudaStream_t, bool);
REFL_CONV2D_MMA(bf16)
REFL_CONV2D_MMA(f16)

}  // namespace refl::cuda
