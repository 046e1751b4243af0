// Convolutions of float32 by core_f32.h's main loop; the rows of patches are gathered while they are copied to
// shared memory and never written down.
//
// Output and input gradient are one kernel: for each pixel of the result a sum over taps and channels of the source.
// The input gradient of a stride is cut into phases: the pixels with equal remainders of (pixel + padding) / stride
// meet the same taps, every stride-th, and among them it is a convolution of stride 1 that runs through dy backwards.
// So no product with a zero between dy's pixels is made. A block first writes down where its rows' pixels lie; a tap is
// then an offset and two bounds. 2 * pixels * taps * channels * outputs operations, and as many bytes as core_f32.h
// says; the source's kernel height x width reads of a pixel are L1's and L2's but for the first.
//
// The weight gradient's rows are outputs, its columns taps x channels with the channels innermost, as x lies, and its
// depth the pixels of dy, split among blocks. The sum of the partial results turns them into [O, C, kh, kw] through
// shared memory, coalesced both ways. It reads 4 bytes for each of them and writes each element once.
#include "conv2d/conv2d.h"
#include "gemm/core_tf32.h"

namespace refl::cuda {
namespace {

using namespace f32;

/** An axis of a result: its pixels first + i * step, i < count, whose first tap meets origin + i * originStep of the
 * source. Their taps are tapFirst + j * tapStep, j < taps. */
struct Axis {
  int count, first, step, origin, originStep, taps, tapFirst, tapStep;
};

template <bool kBackward>
__device__ __forceinline__ Axis axisOf(int phase, int size, int kernel, int stride, int before) {
  if constexpr (!kBackward) return {size, 0, 1, -before, stride, kernel, 0, 1};
  const int at = phase + before, tap = at % stride;
  return {(size - phase + stride - 1) / stride, phase, stride, at / stride, 1,
          (kernel - tap + stride - 1) / stride, tap,   stride};
}

struct Gather {
  ConvShape shape;
  const float *source, *weight, *bias;
  float* to;
  int sourceHeight, sourceWidth, depth;  // depth: its channels
  int height, width, columns;            // of the result
  int phasesX, down;                     // phases in a row of them; tiles of rows in a phase
  Divisor byDepth;
  int splits;
  int64_t splitStride;
  bool wide, quads;
  Epilogue epilogue;
};

/** A row of the tile in the source: its pixel at the first tap, that pixel's y and x; and in the result, or -1. */
constexpr int kPixel = 0, kY = 1, kX = 2, kResult = 3;
constexpr int kNowhere = -(1 << 30);  // outside whichever tap is added

template <bool kBackward>
struct Pixels {
  const Gather& p;
  const Axis &y, &x;
  const int (*places)[4];
  __device__ __forceinline__ auto depth(int k) const {
    const int tap = p.byDepth.quotient(k), channel = p.byDepth.remainder(k, tap);
    const int j = tap / x.taps, i = tap - j * x.taps;
    const int dy = kBackward ? -j : j, dx = kBackward ? -i : i;
    const int64_t offset = static_cast<int64_t>(dy * p.sourceWidth + dx) * p.depth + channel;
    return [this, dy, dx, offset](int row) -> From {
      const Pack<int, 4> place = load<4>(places[row]);
      const bool present = static_cast<unsigned>(place[kY] + dy) < static_cast<unsigned>(p.sourceHeight) &&
                           static_cast<unsigned>(place[kX] + dx) < static_cast<unsigned>(p.sourceWidth);
      return {present ? p.source + static_cast<int64_t>(place[kPixel]) * p.depth + offset : p.source, present};
    };
  }
};

struct Weights {
  const Gather& p;
  const Axis &y, &x;
  int first;
  __device__ __forceinline__ auto depth(int k) const {
    const int tap = p.byDepth.quotient(k), channel = p.byDepth.remainder(k, tap);
    const int j = tap / x.taps, i = tap - j * x.taps;
    const int kernelWidth = p.shape.kernelWidth, taps = p.shape.kernelHeight * kernelWidth;
    const int at = (y.tapFirst + j * y.tapStep) * kernelWidth + x.tapFirst + i * x.tapStep;
    const float* from = p.weight + static_cast<int64_t>(at) * p.depth + channel;
    const int64_t line = static_cast<int64_t>(taps) * p.depth;
    return [this, from, line](int row) -> From {
      const bool present = first + row < p.columns;
      return {present ? from + (first + row) * line : p.weight, present};
    };
  }
};

template <class Product, class T, bool kBackward>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks) convF32Kernel(const __grid_constant__ Gather p) {
  SIMT_SHARED(int, places, [T::kM][4]);
  const ConvShape& s = p.shape;
  const int across = (p.columns + T::kN - 1) / T::kN, split = static_cast<int>(blockIdx.y);
  int block = static_cast<int>(blockIdx.x);
  const int column = block % across * T::kN;
  block /= across;
  const int row = block % p.down * T::kM, phase = block / p.down;
  const Axis y = axisOf<kBackward>(phase / p.phasesX, p.height, s.kernelHeight, s.strideY, s.top);
  const Axis x = axisOf<kBackward>(phase % p.phasesX, p.width, s.kernelWidth, s.strideX, s.left);

  for (int i = static_cast<int>(threadIdx.x); i < T::kM; i += T::kThreads) {
    Pack<int, 4> place = {{0, kNowhere, 0, -1}};
    if (row + i < s.images * y.count * x.count) {
      const int image = (row + i) / (y.count * x.count), pixel = (row + i) % (y.count * x.count);
      const int down = pixel / x.count, right = pixel % x.count;
      const int sourceY = y.origin + down * y.originStep, sourceX = x.origin + right * x.originStep;
      place[kPixel] = (image * p.sourceHeight + sourceY) * p.sourceWidth + sourceX;
      place[kY] = sourceY;
      place[kX] = sourceX;
      place[kResult] = (image * p.height + y.first + down * y.step) * p.width + x.first + right * x.step;
    }
    store(places[i], place);
  }
  __syncthreads();

  const int end = y.taps * x.taps * p.depth;
  const int64_t steps = (end + kDepth - 1) / kDepth;
  const int first = static_cast<int>(steps * split / p.splits), last = static_cast<int>(steps * (split + 1) / p.splits);
  const Pixels<kBackward> pixels = {p, y, x, places};
  const Weights weights = {p, y, x, column};
  float* to = p.to + split * p.splitStride;
  multiply<Product::template Of, T, Layout::kRows, Layout::kRows, true>(
      first, last, {column, p.columns, false, p.quads, p.bias, &p.epilogue},
      [&](float* left, float* right, int k) {
        if (p.wide) {
          copyRows<T::kM, T::kThreads, 4>(left, k, end, pixels);
          copyRows<T::kN, T::kThreads, 4>(right, k, end, weights);
        } else {
          copyRows<T::kM, T::kThreads, 1>(left, k, end, pixels);
          copyRows<T::kN, T::kThreads, 1>(right, k, end, weights);
        }
      },
      [&](int i) -> Row {
        const int pixel = places[i][kResult];
        return {pixel < 0 ? nullptr : to + static_cast<int64_t>(pixel) * p.columns, pixel};
      });
}

struct Correlation {
  ConvShape shape;
  const float *x, *dy;
  float* to;
  Divisor byChannels, byWidth, byHeight;
  int splits;
  bool wideX, wideDy, wideTo;
};

/** dy [pixels, outputs] from an output on. */
struct Outputs {
  const float* at;
  int ld;
  __device__ __forceinline__ auto column(int j) const {
    return [this, j](int k) -> From { return {at + static_cast<int64_t>(k) * ld + j, true}; };
  }
};

/** The pixels of x under each tap and channel, from `first` of these on. */
struct Patches {
  const Correlation& p;
  int first;
  __device__ __forceinline__ auto column(int j) const {
    const ConvShape& s = p.shape;
    const int tap = p.byChannels.quotient(first + j), channel = p.byChannels.remainder(first + j, tap);
    const int down = tap / s.kernelWidth - s.top, right = tap % s.kernelWidth - s.left;
    return [this, down, right, channel](int k) -> From {
      const ConvShape& shape = p.shape;
      const int row = p.byWidth.quotient(k), image = p.byHeight.quotient(row);
      const int y = p.byHeight.remainder(row, image) * shape.strideY + down;
      const int x = p.byWidth.remainder(k, row) * shape.strideX + right;
      const bool present = static_cast<unsigned>(y) < static_cast<unsigned>(shape.height) &&
                           static_cast<unsigned>(x) < static_cast<unsigned>(shape.width);
      const int64_t pixel = static_cast<int64_t>(image * shape.height + y) * shape.width + x;
      return {present ? p.x + pixel * shape.channels + channel : p.x, present};
    };
  }
};

template <class Product, class T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    convGradWeightF32Kernel(const __grid_constant__ Correlation p) {
  const ConvShape& s = p.shape;
  const int columns = s.kernelHeight * s.kernelWidth * s.channels, pixels = s.images * s.outHeight * s.outWidth;
  const int across = (columns + T::kN - 1) / T::kN, split = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x) % across * T::kN, row = static_cast<int>(blockIdx.x) / across * T::kM;
  const int64_t steps = (pixels + kDepth - 1) / kDepth;
  const int first = static_cast<int>(steps * split / p.splits), last = static_cast<int>(steps * (split + 1) / p.splits);
  const Outputs outputs = {p.dy + row, s.outputs};
  const Patches patches = {p, column};
  float* to = p.to + (static_cast<int64_t>(split) * s.outputs + row) * columns;
  multiply<Product::template Of, T, Layout::kColumns, Layout::kColumns, false>(
      first, last, {column, columns, p.wideTo, false, nullptr, nullptr},
      [&](float* left, float* right, int k) {
        if (p.wideDy)
          copyColumns<T::kM, T::kThreads, 4>(left, k, pixels, s.outputs - row, outputs);
        else
          copyColumns<T::kM, T::kThreads, 1>(left, k, pixels, s.outputs - row, outputs);
        if (p.wideX)
          copyColumns<T::kN, T::kThreads, 4>(right, k, pixels, columns - column, patches);
        else
          copyColumns<T::kN, T::kThreads, 1>(right, k, pixels, columns - column, patches);
      },
      [&](int i) -> Row {
        return {row + i < s.outputs ? to + static_cast<int64_t>(i) * columns : nullptr, -1};
      });
}

constexpr int kTurnChannels = 64, kTurnTaps = 32, kTurnThreads = 256;

/** to [rows, channels, taps], the sum of `splits` times partial [rows, taps, channels]. A block turns kTurnChannels x
 * kTurnTaps of a row. */
__global__ void __launch_bounds__(kTurnThreads)
    sumTurnedKernel(const float* __restrict__ partial, int splits, int64_t count, int taps, int channels,
                    float* __restrict__ to) {
  SIMT_SHARED(float, tile, [kTurnChannels][kTurnTaps + 1]);
  const int blocks = (channels + kTurnChannels - 1) / kTurnChannels, row = static_cast<int>(blockIdx.x) / blocks;
  const int channel = static_cast<int>(blockIdx.x) % blocks * kTurnChannels;
  const int tap = static_cast<int>(blockIdx.y) * kTurnTaps;
  const int wide = min(channels - channel, kTurnChannels), high = min(taps - tap, kTurnTaps);
  const int64_t start = static_cast<int64_t>(row) * taps * channels;
  for (int i = static_cast<int>(threadIdx.x); i < wide * high; i += kTurnThreads) {
    const int t = i / wide, c = i % wide;
    const float* from = partial + start + static_cast<int64_t>(tap + t) * channels + channel + c;
    float sum = from[0];
    for (int s = 1; s < splits; ++s) sum += from[s * count];
    tile[c][t] = sum;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < wide * high; i += kTurnThreads) {
    const int c = i / high, t = i % high;
    to[start + static_cast<int64_t>(channel + c) * taps + tap + t] = tile[c][t];
  }
}

int phases(int size, int stride) { return std::min(size, stride); }

/** Rows of the longest phase, and the depth of the deepest. */
Plan planOfInput(const ConvShape& s) {
  const auto part = [](int size, int stride) { return (size + stride - 1) / stride; };
  const int64_t rows = static_cast<int64_t>(s.images) * part(s.height, s.strideY) * part(s.width, s.strideX);
  const int64_t depth =
      static_cast<int64_t>(part(s.kernelHeight, s.strideY)) * part(s.kernelWidth, s.strideX) * s.outputs;
  return planOf(static_cast<int64_t>(phases(s.height, s.strideY)) * phases(s.width, s.strideX), rows, s.channels, depth,
                s.tf32);
}

Plan planOfOutput(const ConvShape& s) {
  return planOf(1, static_cast<int64_t>(s.images) * s.outHeight * s.outWidth, s.outputs,
                static_cast<int64_t>(s.kernelHeight) * s.kernelWidth * s.channels, s.tf32);
}

Plan planOfWeight(const ConvShape& s) {
  return planOf(1, s.outputs, static_cast<int64_t>(s.kernelHeight) * s.kernelWidth * s.channels,
                static_cast<int64_t>(s.images) * s.outHeight * s.outWidth, s.tf32);
}

/** Whether [O, taps, C] is [O, C, taps]. */
bool turned(const ConvShape& s) { return s.channels != 1 && s.kernelHeight * s.kernelWidth != 1; }

template <bool kBackward>
cudaError_t gather(Gather p, const Plan& plan, int64_t rows, int phases, std::byte* scratch, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(p.shape.images) * p.height * p.width * p.columns;
  float* to = p.to;
  const float* bias = p.bias;
  const Epilogue epilogue = p.epilogue;
  p.quads = quadsFit(epilogue, to, p.columns, 0);
  if (plan.splits > 1) {
    p.to = reinterpret_cast<float*>(scratch);
    p.bias = nullptr;
    p.epilogue = {};
    p.splitStride = count;
  }
  const cudaError_t error = withProduct(p.shape.tf32, plan.tile, [&](auto product, auto tile) {
    using T = decltype(tile);
    p.down = static_cast<int>((rows + T::kM - 1) / T::kM);
    const int64_t tiles = static_cast<int64_t>(phases) * p.down * ((p.columns + T::kN - 1) / T::kN);
    return launch<convF32Kernel<decltype(product), T, kBackward>>(
        {dim3(static_cast<unsigned>(tiles), plan.splits), T::kThreads, 0, stream}, p);
  });
  if (plan.splits == 1 || error != cudaSuccess) return error;
  return sumPartials(
      {p.to, bias, to, plan.splits, count, p.columns, static_cast<int>(count / p.columns), p.columns, 0, epilogue},
      stream);
}

}  // namespace

template <>
size_t conv2dScratch<float>(const ConvShape& s) {
  const Plan plan = planOfOutput(s);
  return plan.splits == 1 ? 0 : sizeof(float) * plan.splits * s.images * s.outHeight * s.outWidth * s.outputs;
}

template <>
size_t conv2dGradInputScratch<float>(const ConvShape& s) {
  const Plan plan = planOfInput(s);
  return plan.splits == 1 ? 0 : sizeof(float) * plan.splits * s.images * s.height * s.width * s.channels;
}

template <>
size_t conv2dGradWeightScratch<float>(const ConvShape& s) {
  const Plan plan = planOfWeight(s);
  const size_t bytes = sizeof(float) * plan.splits * s.outputs * s.kernelHeight * s.kernelWidth * s.channels;
  return plan.splits == 1 && !turned(s) ? 0 : bytes;
}

template <>
cudaError_t conv2dForward<float>(const ConvShape& s, const float* x, const float* packed, const float* bias, float* y,
                                 std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue) {
  const Plan plan = planOfOutput(s);
  const bool wide = s.channels % 4 == 0 && aligned16(x) && aligned16(packed);
  const Gather p = {
      s,           x,           packed,     bias,      y,       s.height, s.width,
      s.channels,  s.outHeight, s.outWidth, s.outputs, 1,       0,        Divisor(std::max(1, s.channels)),
      plan.splits, 0,           wide,       false,     epilogue};
  return gather<false>(p, plan, static_cast<int64_t>(s.images) * s.outHeight * s.outWidth, 1, scratch, stream);
}

template <>
cudaError_t conv2dGradInput<float>(const ConvShape& s, const float* dy, const float* packed, float* dx,
                                   std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue) {
  const Plan plan = planOfInput(s);
  const bool wide = s.outputs % 4 == 0 && aligned16(dy) && aligned16(packed);
  const int down = phases(s.height, s.strideY), across = phases(s.width, s.strideX);
  const Gather p = {s,           dy,       packed,  nullptr,    dx,      s.outHeight, s.outWidth,
                    s.outputs,   s.height, s.width, s.channels, across,  0,           Divisor(std::max(1, s.outputs)),
                    plan.splits, 0,        wide,    false,      epilogue};
  const int64_t rows = static_cast<int64_t>(s.images) * ((s.height + s.strideY - 1) / s.strideY) *
                       ((s.width + s.strideX - 1) / s.strideX);
  return gather<true>(p, plan, rows, down * across, scratch, stream);
}

template <>
cudaError_t conv2dGradWeight<float>(const ConvShape& s, const float* x, const float* dy, float* dw, std::byte* scratch,
                                    cudaStream_t stream, bool) {
  const Plan plan = planOfWeight(s);
  const int taps = s.kernelHeight * s.kernelWidth, columns = taps * s.channels;
  const bool direct = plan.splits == 1 && !turned(s);
  const auto divisor = [](int by) { return Divisor(std::max(1, by)); };
  Correlation p = {s,
                   x,
                   dy,
                   direct ? dw : reinterpret_cast<float*>(scratch),
                   divisor(s.channels),
                   divisor(s.outWidth),
                   divisor(s.outHeight),
                   plan.splits,
                   s.channels % 4 == 0 && aligned16(x),
                   s.outputs % 4 == 0 && aligned16(dy),
                   false};
  p.wideTo = columns % 4 == 0 && aligned16(p.to);
  const cudaError_t error = withProduct(s.tf32, plan.tile, [&](auto product, auto tile) {
    using T = decltype(tile);
    const int64_t tiles = static_cast<int64_t>((s.outputs + T::kM - 1) / T::kM) * ((columns + T::kN - 1) / T::kN);
    return launch<convGradWeightF32Kernel<decltype(product), T>>(
        {dim3(static_cast<unsigned>(tiles), plan.splits), T::kThreads, 0, stream}, p);
  });
  if (direct || error != cudaSuccess) return error;
  const int64_t count = static_cast<int64_t>(s.outputs) * columns;
  if (!turned(s)) return sumPartials({p.to, nullptr, dw, plan.splits, count, columns, s.outputs, columns, 0}, stream);
  const dim3 grid(s.outputs * ((s.channels + kTurnChannels - 1) / kTurnChannels), (taps + kTurnTaps - 1) / kTurnTaps);
  return launch<sumTurnedKernel>({grid, kTurnThreads, 0, stream}, p.to, plan.splits, count, taps, s.channels, dw);
}

}  // namespace refl::cuda
