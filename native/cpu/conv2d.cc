// Convolution and its two gradients as products of gemm.h over image patches (patches.h): no patch matrix in memory.
//
//   conv2d            y[pixel, o]        = patches(x)[pixel, (ky, kx, c)]      * w[(ky, kx, c), o] + bias[o]
//   conv2dGradInput   dx[pixel, c]       = patches(dy)[pixel, (ky, kx, o)]     * w[(ky, kx, o), c], kernel turned round
//   conv2dGradWeight  dw[o, (ky, kx, c)] = dy[pixel, o]^T * patches(x)[pixel, (ky, kx, c)]
//
// Each is 2 N OH OW O C kh kw operations. Weights are packed once where frozen, else into scratch at every run. 3x3
// convolutions of stride 1 with frozen float weights go by winograd.h where that is faster.
#include <vector>

#include "cpu/epilogue.h"
#include "cpu/gemm.h"
#include "cpu/patches.h"
#include "cpu/winograd_grad.h"

namespace refl::REFL_ISA {

namespace {

struct Conv {
  int64_t batch, height, width, channels;    // x
  int64_t outHeight, outWidth, outChannels;  // y
  int64_t kernelHeight, kernelWidth;
  int64_t strideY, strideX, top, left;

  int64_t taps() const { return kernelHeight * kernelWidth; }
  int64_t pixels() const { return batch * outHeight * outWidth; }
  Patches patches() const {
    return {height,  width,   channels, channels, outHeight,    outWidth,
            strideY, strideX, top,      left,     kernelHeight, kernelWidth};
  }
};

Conv convOf(const NodeSpec& node, const Shape& x, const Shape& y, int64_t kernelHeight, int64_t kernelWidth) {
  const auto stride = node.integers("stride"), padding = node.integers("padding");
  return {x[0],         x[1],        x[2],      x[3],      y[1],       y[2],      y[3],
          kernelHeight, kernelWidth, stride[0], stride[1], padding[0], padding[1]};
}

// One product of a convolution: the patches on its left, its weights as a packed matrix, and where rows of its result
// go. A gradient by the input with stride has one for every phase of pixel positions, each with the taps that reach it.
struct Phase {
  Patches patches;
  std::vector<int64_t> taps;   // offsets of the kernel's taps in an [kh, kw] plane, in the patches' order
  int64_t y, x, stepY, stepX;  // pixel of the first row, and the distance of rows
  int64_t packedAt;            // elements before its packed weights
};

// A packed weight matrix, made of OIHW weights with `plane` taps: rows (tap, in) and columns out; or, for the gradient
// by the input, rows (tap, out) and columns in. `fold` neighbouring taps make that many times more columns.
struct Weights {
  int64_t outs, ins, plane;
  bool gradient;
  int64_t fold;

  int64_t rows() const { return gradient ? outs : ins; }  // a tap
  int64_t columns() const { return gradient ? fold * ins : outs; }
};

// One panel of a gradient's matrix: `count` columns from `first` on.
template <class T>
void packGradientPanel(const Weights& w, const std::vector<int64_t>& taps, const T* from, int64_t first, int64_t count,
                       int64_t width, T* to) {
  constexpr int64_t W = kLanes<T>;
  const auto tapCount = static_cast<int64_t>(taps.size());
  const int64_t matrix = w.ins * w.plane;  // [in, tap] of one output
  const bool squares = w.fold == 1 && w.plane <= W && count % W == 0;
  for (int64_t o = 0; o < w.outs; o++, from += matrix) {
    // Squares of the matrix, read past its few columns into the next rows; the last ones of all lack those.
    if (squares && (first + count - 1) * w.plane + W <= (w.outs - o) * matrix) {
      T unused[W];
      T* slots[W];
      for (int64_t i = 0; i < count; i += W) {
        std::fill_n(slots, W, &unused[0]);
        for (int64_t t = 0; t < tapCount; t++) slots[taps[static_cast<size_t>(t)]] = to + (t * w.outs + o) * width + i;
        transposeSquare(from + (first + i) * w.plane, w.plane, [&](int64_t t) { return slots[t]; });
      }
      continue;
    }
    for (int64_t t = 0; t < tapCount; t++) {
      const T* tap = from + taps[static_cast<size_t>(t)];
      T* row = to + (t * w.outs + o) * width;
      for (int64_t i = 0; i < count; i++) row[i] = tap[(first + i) % w.ins * w.plane + (first + i) / w.ins];
    }
  }
}

// Each panel's weights lie together, so those of a file are read panel by panel, into each thread's `each` of `room`;
// a gradient's do not. Panels that are kept in 16 bits are made in the last part of it.
template <class T, class S>
void packWeights(const Weights& w, const std::vector<int64_t>& taps, Values& from, S* to, T* room, int64_t each) {
  const int64_t depth = static_cast<int64_t>(taps.size()) * w.rows(), ld = w.ins * w.plane;
  const T* all = w.gradient ? from.all<T>() : nullptr;
  parallelFor(ceilDiv(w.columns(), kPanel<T>), 1, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * kPanel<T>; j < std::min(w.columns(), end * kPanel<T>); j += kPanel<T>) {
      panels<T>(std::min(w.columns() - j, kPanel<T>), [&](int64_t, int64_t count, int64_t width) {
        T* own = room + omp_get_thread_num() * each;
        keep(to + j * depth, width * depth, own + each - kPanel<T> * depth, [&](T* panel) {
          if (w.gradient) {
            packGradientPanel(w, taps, all, j, count, width, panel);
          } else {
            const T* part = from.part(j * ld, count * ld, own);
            transpose(count, ld, part, ld,
                      [&](int64_t k) { return panel + (k % w.plane * w.ins + k / w.plane) * width; });
          }
          for (int64_t k = 0; k < depth && count < width; k++) {
            std::fill(panel + k * width + count, panel + (k + 1) * width, T(0));
          }
        });
      });
    }
  });
}

// Binds products that share the image in[0], the weights in[1], kept as S where frozen, and the output, of [batch,
// height, width] pixels.
template <class T, class S>
Bound bindPhases(const Operand& weight, const Weights& w, std::vector<Phase> phases, const std::string& key,
                 int64_t batch, int64_t height, int64_t width, bool hasBias, const Epilogue<T>& epilogue) {
  // One buffer may be seen in several shapes.
  const std::string keptAs = key + " " + describe(weight.dtype, weight.shape);
  constexpr bool narrow = !std::is_same_v<T, S>;
  const int64_t threads = omp_get_max_threads(), columnCount = w.columns();
  int64_t packedElements = 0, deepest = 0;
  for (Phase& phase : phases) {
    phase.packedAt = packedElements;
    packedElements += packedSize<T>(columnCount, phase.patches.depth());
    deepest = std::max(deepest, phase.patches.depth());
  }
  packedElements = roundUp(packedElements, kLanes<T>);
  const auto frozen =
      weight.frozen ? weight.buffer->pack(keptAs, static_cast<size_t>(packedElements) * sizeof(S)) : nullptr;
  const int64_t filed = frozen && !w.gradient ? kPanel<T> * w.ins * w.plane : 0;
  const int64_t each = std::max(regionScratch<T>(!narrow), filed + (narrow ? kPanel<T> * deepest : 0));

  const auto run = [=](const Args& args) {
    T* scratch = reinterpret_cast<T*>(args.scratch);
    const auto pack = [&](Values& from, std::byte* to) {
      for (const Phase& phase : phases)
        packWeights(w, phase.taps, from, reinterpret_cast<S*>(to) + phase.packedAt, scratch, each);
    };
    std::shared_ptr<std::byte> copy;
    S* packed = reinterpret_cast<S*>(scratch + threads * each);
    if (frozen) {
      copy = frozen->get(pack);
      packed = reinterpret_cast<S*>(copy.get());
    } else {
      Values plain(args.in[1].data);
      pack(plain, reinterpret_cast<std::byte*>(packed));
    }
    const T* bias = hasBias ? args.in[2].as<T>() : nullptr;
    for (const Phase& phase : phases) {
      const Patches& p = phase.patches;
      const int64_t pixels = batch * p.rows * p.columns;
      const Grid grid = gridOf<T>(pixels, columnCount, threads, true);
      parallelFor(grid.rows * grid.columns, 1, [&](int64_t begin, int64_t end) {
        for (int64_t cell = begin; cell < end; cell++) {
          const Range rows = partOf(pixels, kTileRows, cell / grid.columns, grid.rows);
          const Range columns = partOf(columnCount, kPanel<T>, cell % grid.columns, grid.columns);
          const auto a = [&](int64_t row, int64_t count, int64_t k, int64_t depth, T* to, int64_t ld) {
            copyPatches(p, args.in[0].as<T>(), rows.begin + row, count, k, depth, to, ld);
          };
          const auto c = [&](int64_t row) {
            const int64_t at = rows.begin + row, x = at % p.columns, y = at / p.columns % p.rows;
            const int64_t line = at / (p.rows * p.columns) * height + phase.y + y * phase.stepY;
            return args.out[0].as<T>() + (line * width + phase.x + x * phase.stepX) * columnCount + columns.begin;
          };
          const auto b = kept<T>(packed + phase.packedAt + columns.begin * p.depth(), p.depth());
          const T* start = bias ? bias + columns.begin : nullptr;
          const auto finish = [&](T* from, int64_t count) { epilogue.finish(args, from, count); };
          T* own = scratch + each * omp_get_thread_num();
          if (p.pixelwise() && Rows<T>::pays(p.pixel)) {
            const Rows<T> x{args.in[0].as<T>() + rows.begin * p.pixel, p.pixel};
            gemmRegion(rows.size(), columns.size(), p.depth(), x, b, start, c, finish, own);
          } else {
            gemmRegion(rows.size(), columns.size(), p.depth(), a, b, start, c, finish, own);
          }
        }
      });
    }
  };
  Bound bound{run, static_cast<size_t>(threads * each + (frozen ? 0 : packedElements)) * sizeof(T)};
  if (frozen) bound.packed = {{1, frozen}};
  return bound;
}

// The pixels of dx at one position modulo the stride, along one axis: pixel first + i * stride gets, from output i + j
// - before, the taps in their order.
struct Axis {
  int64_t count, before;
  std::vector<int64_t> taps;
};

Axis phaseAxis(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t first) {
  Axis axis{ceilDiv(size - first, stride), 0, {}};
  for (int64_t tap = kernel - 1; tap >= 0; tap--) {
    if ((first + padding - tap) % stride == 0) axis.taps.push_back(tap);
  }
  // The largest tap meets the earliest output, number (first + padding - tap) / stride.
  if (!axis.taps.empty()) axis.before = -(first + padding - axis.taps[0]) / stride;
  return axis;
}

// `tapRow` is the distance of the kernel's rows in its plane.
std::vector<Phase> inputPhases(const Conv& conv, int64_t tapRow) {
  std::vector<Phase> phases;
  for (int64_t y = 0; y < std::min(conv.strideY, conv.height); y++) {
    const Axis rows = phaseAxis(conv.height, conv.kernelHeight, conv.strideY, conv.top, y);
    for (int64_t x = 0; x < std::min(conv.strideX, conv.width); x++) {
      const Axis columns = phaseAxis(conv.width, conv.kernelWidth, conv.strideX, conv.left, x);
      const auto kh = static_cast<int64_t>(rows.taps.size()), kw = static_cast<int64_t>(columns.taps.size());
      Phase phase{{conv.outHeight, conv.outWidth, conv.outChannels, conv.outChannels, rows.count, columns.count, 1, 1,
                   rows.before, columns.before, kh, kw},
                  {},
                  y,
                  x,
                  conv.strideY,
                  conv.strideX,
                  0};
      for (int64_t ky : rows.taps) {
        for (int64_t kx : columns.taps) phase.taps.push_back(ky * tapRow + kx);
      }
      phases.push_back(std::move(phase));
    }
  }
  return phases;
}

// A block of rows of dw by a chunk of input channels is a task: its sums over all pixels stay in the cache until they
// are written, in OIHW order.
template <class T>
Bound bindGradWeight(const Conv& conv) {
  const int64_t threads = omp_get_max_threads(), taps = conv.taps();
  const int64_t chunk = std::min(conv.channels, roundUp(std::max<int64_t>(1, 576 / taps), kPanel<T>));
  const int64_t chunks = ceilDiv(conv.channels, chunk);
  int64_t height = std::min(kBlockRows, conv.outChannels);
  while (height > 2 * kTileRows && ceilDiv(conv.outChannels, height) * chunks < 2 * threads)
    height = ceilDiv(height, 2);
  const int64_t blocks = ceilDiv(conv.outChannels, height);
  const int64_t each = regionScratch<T>(false) + roundUp(height * chunk * taps, kLanes<T>);

  const auto run = [=](const Args& args) {
    const T *x = args.in[0].as<T>(), *dy = args.in[1].as<T>();
    T* dw = args.out[0].as<T>();
    parallelFor(blocks * chunks, 1, [&](int64_t begin, int64_t end) {
      T* scratch = reinterpret_cast<T*>(args.scratch) + each * omp_get_thread_num();
      T* sums = scratch + regionScratch<T>(false);
      for (int64_t task = begin; task < end; task++) {
        const Range outs = partOf(conv.outChannels, 1, task / chunks, blocks);
        const Range ins = partOf(conv.channels, chunk, task % chunks, chunks);
        const int64_t columns = taps * ins.size();
        Patches p = conv.patches();
        p.channels = ins.size();
        const auto a = [&](int64_t row, int64_t count, int64_t k, int64_t depth, T* to, int64_t ld) {
          const T* from = dy + k * conv.outChannels + outs.begin + row;
          transpose(depth, count, from, conv.outChannels, [&](int64_t o) { return to + o * ld; });
        };
        const auto b = [&](int64_t column, int64_t count, int64_t k, int64_t depth, T* to) {
          packPatches(p, x + ins.begin, column, count, k, depth, to);
        };
        const auto c = [&](int64_t row) { return sums + row * columns; };
        gemmRegion<T>(outs.size(), columns, conv.pixels(), a, b, nullptr, c, unfinished<T>, scratch);
        for (int64_t o = 0; o < outs.size(); o++) {
          T* to = dw + ((outs.begin + o) * conv.channels + ins.begin) * taps;
          for (int64_t i = 0; i < ins.size(); i++) {
            for (int64_t t = 0; t < taps; t++) to[i * taps + t] = sums[o * columns + t * ins.size() + i];
          }
        }
      }
    });
  };
  return {run, static_cast<size_t>(threads * each) * sizeof(T)};
}

}  // namespace

Bound bindConv2d(const NodeSpec& node) {
  const Operand &x = node.inputs[0], &weight = node.inputs[1], &y = node.outputs[0];
  const Conv conv = convOf(node, x.shape, y.shape, weight.dim(2), weight.dim(3));
  const bool bias = node.inputs[2].present;
  const Winograd winograd{conv.batch,    conv.height,      conv.width, conv.channels, conv.outHeight,
                          conv.outWidth, conv.outChannels, conv.top,   conv.left,     false};
  if (y.dtype == DType::f32 && conv.strideY == 1 && conv.strideX == 1 &&
      winograd.pays(conv.kernelHeight, conv.kernelWidth, keepsTransform(weight))) {
    return onKept(weight, [&](auto stored) {
      return bindWinograd<decltype(stored)>(winograd, weight, bias, Epilogue<float>(node, 3));
    });
  }
  Phase phase{conv.patches(), {}, 0, 0, 1, 1, 0};
  for (int64_t t = 0; t < conv.taps(); t++) phase.taps.push_back(t);
  const Weights w{conv.outChannels, conv.channels, conv.taps(), false, 1};
  return onKept(y.dtype, weight, node, [&](auto tag, auto stored) {
    using T = decltype(tag);
    return bindPhases<T, decltype(stored)>(weight, w, {phase}, "conv2d", conv.batch, conv.outHeight, conv.outWidth,
                                           bias, Epilogue<T>(node, 3));
  });
}

Bound bindConv2dGradInput(const NodeSpec& node) {
  const Operand &dy = node.inputs[0], &weight = node.inputs[1], &dx = node.outputs[0];
  Conv conv = convOf(node, dx.shape, dy.shape, weight.dim(2), weight.dim(3));
  // With stride 1 this is the convolution of dy with the kernel turned round, padded by what is left of its extent.
  const Winograd winograd{conv.batch,
                          conv.outHeight,
                          conv.outWidth,
                          conv.outChannels,
                          conv.height,
                          conv.width,
                          conv.channels,
                          conv.kernelHeight - 1 - conv.top,
                          conv.kernelWidth - 1 - conv.left,
                          true};
  if (dx.dtype == DType::f32 && conv.strideY == 1 && conv.strideX == 1 &&
      winograd.pays(conv.kernelHeight, conv.kernelWidth, keepsTransform(weight))) {
    return onKept(weight, [&](auto stored) {
      return bindWinograd<decltype(stored)>(winograd, weight, false, Epilogue<float>(node, 2));
    });
  }
  std::string key = "conv2dGradInput " + std::to_string(conv.strideY) + " " + std::to_string(conv.strideX) + " " +
                    std::to_string(conv.top % conv.strideY) + " " + std::to_string(conv.left % conv.strideX);
  const int64_t tapRow = conv.kernelWidth;
  Weights w{conv.outChannels, conv.channels, conv.taps(), true, 1};
  if (conv.strideX > 1 && conv.strideX == conv.kernelWidth && conv.left == 0 &&
      conv.width == conv.outWidth * conv.strideX) {
    // Patches that tile the image's rows: a row of a patch is one pixel of more channels, and the stride is gone.
    w.fold = conv.kernelWidth;
    key += " rows";
    conv.channels *= conv.kernelWidth;
    conv.width = conv.outWidth;
    conv.kernelWidth = conv.strideX = 1;
  }
  return onKept(dx.dtype, weight, node, [&](auto tag, auto stored) {
    using T = decltype(tag);
    return bindPhases<T, decltype(stored)>(weight, w, inputPhases(conv, tapRow), key, conv.batch, conv.height,
                                           conv.width, false, Epilogue<T>(node, 2));
  });
}

Bound bindConv2dGradWeight(const NodeSpec& node) {
  const auto kernel = node.integers("kernel");
  const Conv conv = convOf(node, node.inputs[0].shape, node.inputs[1].shape, kernel[0], kernel[1]);
  const Winograd winograd{conv.batch,    conv.height,      conv.width, conv.channels, conv.outHeight,
                          conv.outWidth, conv.outChannels, conv.top,   conv.left,     false};
  const bool transforms = node.outputs[0].dtype == DType::f32 && conv.strideY == 1 && conv.strideX == 1 &&
                          winograd.pays(conv.kernelHeight, conv.kernelWidth, false);
  Bound bound =
      transforms ? bindWinogradGradWeight(winograd)
                 : onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindGradWeight<decltype(tag)>(conv); });
  if (node.rounded == DType::f32) return bound;
  // Of operands in 16 bits, the result may be wanted in float32: it is what those bits could hold.
  return {[run = std::move(bound.run), rounded = node.rounded](const Args& args) {
            run(args);
            parallelFor(args.out[0].size(), 1 << 14, [&](int64_t begin, int64_t end) {
              roundTo(rounded, args.out[0].as<float>() + begin, end - begin);
            });
          },
          bound.scratch};
}

}  // namespace refl::REFL_ISA
