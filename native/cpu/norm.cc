// Group and layer normalisation, forward and backward; SiLU folded into the group norm's output.
//
// Group norm of [N, P pixels, C]. An image is cut into chunks of about 256 KiB of pixels, the unit of work of a thread.
//   forward   1. per chunk and channel, sums of x and x^2 about a pivot (the image's first pixel, against cancellation)
//             2. per group, mean and rstd from those            3. per chunk, y = silu(x * scale[c] + shift[c])
//             Two reads of x and one write of y; chunks are visited backwards in step 3, so that the last ones are
//             still cached. About 7 operations an element, with SiLU 30.
//   backward  1. per chunk and channel, sums of g and g * xhat, where g = dy * silu'(xhat * gamma + beta)
//             2. per group, their gamma-weighted means; dgamma, dbeta      3. dx = rstd (gamma g - mean - xhat mean')
//             Two reads each of x and dy, one write of dx; g is computed twice rather than kept.
// Sums run in the element type over 32 pixels at a time, then in float64, in an order that no thread count changes.
//
// Layer norm of [rows, C]: a thread's unit is a block of 32 rows. Each row is read once from memory; its mean, its
// variance about that mean and its output are passes over L1. dgamma and dbeta: one partial sum a block, then float64.
#include <limits>

#include "cpu/support.h"
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {
namespace {

constexpr int64_t kChunkBytes = 256 << 10;
constexpr int64_t kBlock = 32;   // pixels or rows summed in the element type
constexpr int64_t kLanes = 512;  // channels whose running sums stay in L1

template <class T>
REFL_INLINE T silu(T x) {
  return x * vec::sigmoid(x);
}

template <class T>
REFL_INLINE T siluSlope(T x) {
  const T s = vec::sigmoid(x);
  return s + x * s * (T{1} - s);
}

struct GroupPlan {
  int64_t images, pixels, channels, groups, perGroup;
  int64_t chunkPixels, chunks;  // of one image

  GroupPlan(const Operand& x, int64_t groupCount) : images(x.dim(0)), channels(x.dim(-1)), groups(groupCount) {
    perGroup = channels / groups;
    pixels = images > 0 && channels > 0 ? x.size() / (images * channels) : 0;
    chunkPixels =
        std::max<int64_t>(1, kChunkBytes / static_cast<int64_t>(bytesOf(x.dtype)) / std::max<int64_t>(1, channels));
    chunks = (pixels + chunkPixels - 1) / chunkPixels;
  }

  // Two float64 sums per image, chunk and channel.
  int64_t sums() const { return images * chunks * 2 * channels; }
  double* sumsOf(std::byte* scratch, int64_t image, int64_t chunk) const {
    return reinterpret_cast<double*>(scratch) + (image * chunks + chunk) * 2 * channels;
  }
  // `count` tables of `channels` values per image, after the sums.
  template <class T>
  T* tables(std::byte* scratch, int64_t image, int64_t count) const {
    return reinterpret_cast<T*>(reinterpret_cast<double*>(scratch) + sums()) + image * count * channels;
  }
  template <class T>
  size_t scratchBytes(int64_t tableCount) const {
    return sums() * sizeof(double) + images * tableCount * channels * sizeof(T);
  }

  // fn(image, first element, pixel count, chunk) for every chunk, split over threads.
  template <class Fn>
  void eachChunk(bool backwards, Fn&& fn) const {
    parallelFor(images * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = backwards ? begin + end - 1 - i : i;
        const int64_t image = at / chunks, chunk = at - image * chunks, first = chunk * chunkPixels;
        fn(image, (image * pixels + first) * channels, std::min(chunkPixels, pixels - first), chunk);
      }
    });
  }

  // fn(image, group) for every group, split over threads.
  template <class Fn>
  void eachGroup(Fn&& fn) const {
    parallelFor(images * groups, 1 + 4096 / (chunks * perGroup + 1), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fn(i / groups, i % groups);
    });
  }

  // Adds the chunks' sums of the group's channels into those of chunk 0.
  void foldChunks(std::byte* scratch, int64_t image, int64_t group) const {
    double* total = sumsOf(scratch, image, 0);
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const double* part = sumsOf(scratch, image, chunk);
      for (int64_t c = group * perGroup; c < (group + 1) * perGroup; ++c) {
        total[c] += part[c];
        total[channels + c] += part[channels + c];
      }
    }
  }
};

// Sums over `pixels` rows of `channels` values into sums[c] and sums[channels + c], both set here. add(p, c0, n, a, b)
// adds the two terms of pixel p's channels [c0, c0 + n) to a[0..n) and b[0..n).
template <class T, class Add>
void blockSums(int64_t pixels, int64_t channels, double* sums, Add&& add) {
  std::fill_n(sums, 2 * channels, 0.0);
  T a[kLanes], b[kLanes];
  for (int64_t first = 0; first < pixels; first += kBlock) {
    const int64_t last = std::min(first + kBlock, pixels);
    for (int64_t c0 = 0; c0 < channels; c0 += kLanes) {
      const int64_t n = std::min(kLanes, channels - c0);
      std::fill_n(a, n, T{0});
      std::fill_n(b, n, T{0});
      for (int64_t p = first; p < last;) p += add(p, last - p, c0, n, a, b);
      for (int64_t c = 0; c < n; ++c) sums[c0 + c] += a[c];
      for (int64_t c = 0; c < n; ++c) sums[channels + c0 + c] += b[c];
    }
  }
}

template <class T>
void chunkMoments(const T* x, const T* pivot, int64_t pixels, int64_t channels, double* sums) {
  blockSums<T>(pixels, channels, sums,
               [&](int64_t p, int64_t left, int64_t c0, int64_t n, T* __restrict a, T* __restrict b) {
                 const T *x0 = x + p * channels + c0, *k = pivot + c0;
                 if (left < 4) {
                   for (int64_t c = 0; c < n; ++c) {
                     const T d = x0[c] - k[c];
                     a[c] += d;
                     b[c] += d * d;
                   }
                   return 1;
                 }
                 const T *x1 = x0 + channels, *x2 = x1 + channels, *x3 = x2 + channels;
                 for (int64_t c = 0; c < n; ++c) {
                   const T d0 = x0[c] - k[c], d1 = x1[c] - k[c], d2 = x2[c] - k[c], d3 = x3[c] - k[c];
                   a[c] += (d0 + d1) + (d2 + d3);
                   b[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
                 }
                 return 4;
               });
}

template <class T, bool kSilu>
void affineRows(const T* __restrict x, const T* __restrict scale, const T* __restrict shift, int64_t rows, int64_t n,
                T* __restrict y) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    for (int64_t c = 0; c < n; ++c) {
      const T u = x[c] * scale[c] + shift[c];
      y[c] = kSilu ? silu(u) : u;
    }
  }
}

// Per-channel rows of what the group norm's gradient needs: xhat = x * rstd + shift; dx = a * g - b - d * xhat.
template <class T>
struct GradRows {
  const T *rstd, *shift, *gamma, *beta, *a, *b, *d;
};

// The gradient of the normalisation's output before SiLU.
template <bool kSilu, class T>
REFL_INLINE T gradBeforeSilu(T dy, T xhat, T gamma, T beta) {
  return kSilu ? dy * siluSlope(xhat * gamma + beta) : dy;
}

template <class T, bool kSilu>
void addGradSums(const T* __restrict x, const T* __restrict dy, const GradRows<T>& rows, int64_t c0, int64_t n,
                 T* __restrict sumG, T* __restrict sumGX) {
  const T* __restrict rstd = rows.rstd + c0, * __restrict shift = rows.shift + c0;
  const T* __restrict gamma = rows.gamma + c0, * __restrict beta = rows.beta + c0;
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) {
    const T xhat = x[c] * rstd[c] + shift[c];
    const T g = gradBeforeSilu<kSilu>(dy[c], xhat, gamma[c], beta[c]);
    sumG[c] += g;
    sumGX[c] += g * xhat;
  }
}

template <class T, bool kSilu>
void gradRow(const T* __restrict x, const T* __restrict dy, const GradRows<T>& rows, int64_t n, T* __restrict dx) {
  const T* __restrict rstd = rows.rstd, * __restrict shift = rows.shift, * __restrict gamma = rows.gamma;
  const T* __restrict beta = rows.beta, * __restrict a = rows.a, * __restrict b = rows.b, * __restrict d = rows.d;
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) {
    const T xhat = x[c] * rstd[c] + shift[c];
    dx[c] = a[c] * gradBeforeSilu<kSilu>(dy[c], xhat, gamma[c], beta[c]) - b[c] - d[c] * xhat;
  }
}

// For an empty x: its statistics, or the gradients of its gamma and beta, the second and third result.
template <class T>
Bound fillTables(T value) {
  return {[value](const Args& args) {
    for (int k = 1; k < 3; ++k) std::fill_n(args.out[k].as<T>(), args.out[k].size(), value);
  }};
}

template <class T, bool kSilu>
Bound bindGroupNormOf(const NodeSpec& node) {
  const GroupPlan plan(node.inputs[0], node.integer("groups"));
  if (plan.pixels == 0) return fillTables<T>(std::numeric_limits<T>::quiet_NaN());  // the mean of no pixels
  return {[plan, eps = node.number("eps")](const Args& args) {
            const T *x = args.in[0].as<const T>(), *gamma = args.in[1].as<const T>(), *beta = args.in[2].as<const T>();
            T *y = args.out[0].as<T>(), *means = args.out[1].as<T>(), *rstds = args.out[2].as<T>();
            const int64_t C = plan.channels;
            const auto pixels = static_cast<double>(plan.pixels);
            plan.eachChunk(false, [&](int64_t image, int64_t at, int64_t count, int64_t chunk) {
              chunkMoments(x + at, x + image * plan.pixels * C, count, C, plan.sumsOf(args.scratch, image, chunk));
            });
            plan.eachGroup([&](int64_t image, int64_t group) {
              plan.foldChunks(args.scratch, image, group);
              const double* sums = plan.sumsOf(args.scratch, image, 0);
              const T* pivot = x + image * plan.pixels * C;
              const int64_t begin = group * plan.perGroup, end = begin + plan.perGroup;
              // Moments of the channels, then of the group they make up.
              const auto channelMean = [&](int64_t c) { return static_cast<double>(pivot[c]) + sums[c] / pixels; };
              double mean = 0, spread = 0;
              for (int64_t c = begin; c < end; ++c) mean += channelMean(c) / static_cast<double>(plan.perGroup);
              for (int64_t c = begin; c < end; ++c) {
                const double away = channelMean(c) - mean;
                spread += sums[C + c] - sums[c] * sums[c] / pixels + pixels * away * away;
              }
              const double variance = std::max(0.0, spread / (pixels * static_cast<double>(plan.perGroup)));
              const double rstd = 1 / std::sqrt(variance + eps);
              means[image * plan.groups + group] = static_cast<T>(mean);
              rstds[image * plan.groups + group] = static_cast<T>(rstd);
              T *scale = plan.template tables<T>(args.scratch, image, 2), *shift = scale + C;
              for (int64_t c = begin; c < end; ++c) {
                scale[c] = static_cast<T>(rstd * gamma[c]);
                shift[c] = static_cast<T>(beta[c] - mean * rstd * gamma[c]);
              }
            });
            plan.eachChunk(true, [&](int64_t image, int64_t at, int64_t count, int64_t) {
              const T* scale = plan.template tables<T>(args.scratch, image, 2);
              affineRows<T, kSilu>(x + at, scale, scale + C, count, C, y + at);
            });
          },
          plan.scratchBytes<T>(2)};
}

template <class T, bool kSilu>
Bound bindGroupNormGradOf(const NodeSpec& node) {
  const GroupPlan plan(node.inputs[0], node.integer("groups"));
  if (plan.pixels == 0) return fillTables<T>(T{0});
  return {[plan](const Args& args) {
            const T *x = args.in[0].as<const T>(), *gamma = args.in[1].as<const T>(), *beta = args.in[2].as<const T>();
            const T *means = args.in[3].as<const T>(), *rstds = args.in[4].as<const T>(),
                    *dy = args.in[5].as<const T>();
            T *dx = args.out[0].as<T>(), *dgamma = args.out[1].as<T>(), *dbeta = args.out[2].as<T>();
            const int64_t C = plan.channels;
            const auto tables = [&](int64_t image) { return plan.template tables<T>(args.scratch, image, 5); };
            const auto rowsOf = [&](int64_t image) {
              const T* table = tables(image);
              return GradRows<T>{table, table + C, gamma, beta, table + 2 * C, table + 3 * C, table + 4 * C};
            };
            for (int64_t image = 0; image < plan.images; ++image) {
              T *rstd = tables(image), *shift = rstd + C;
              for (int64_t c = 0; c < C; ++c) {
                const int64_t group = image * plan.groups + c / plan.perGroup;
                rstd[c] = rstds[group];
                shift[c] = -means[group] * rstds[group];
              }
            }
            plan.eachChunk(false, [&](int64_t image, int64_t at, int64_t count, int64_t chunk) {
              const GradRows<T> rows = rowsOf(image);
              const auto add = [&](int64_t p, int64_t, int64_t c0, int64_t n, T* sumG, T* sumGX) {
                const int64_t from = at + p * C + c0;
                addGradSums<T, kSilu>(x + from, dy + from, rows, c0, n, sumG, sumGX);
                return 1;
              };
              blockSums<T>(count, C, plan.sumsOf(args.scratch, image, chunk), add);
            });
            plan.eachGroup([&](int64_t image, int64_t group) {
              plan.foldChunks(args.scratch, image, group);
              const double* sums = plan.sumsOf(args.scratch, image, 0);
              const int64_t begin = group * plan.perGroup, end = begin + plan.perGroup;
              double meanG = 0, meanGX = 0;
              for (int64_t c = begin; c < end; ++c) {
                meanG += gamma[c] * sums[c];
                meanGX += gamma[c] * sums[C + c];
              }
              const double members = static_cast<double>(plan.pixels * plan.perGroup);
              T* table = tables(image);
              for (int64_t c = begin; c < end; ++c) {
                const double rstd = table[c];
                table[2 * C + c] = static_cast<T>(rstd * gamma[c]);
                table[3 * C + c] = static_cast<T>(rstd * meanG / members);
                table[4 * C + c] = static_cast<T>(rstd * meanGX / members);
              }
            });
            for (int64_t c = 0; c < C; ++c) {
              double sumG = 0, sumGX = 0;
              for (int64_t image = 0; image < plan.images; ++image) {
                sumG += plan.sumsOf(args.scratch, image, 0)[c];
                sumGX += plan.sumsOf(args.scratch, image, 0)[C + c];
              }
              dgamma[c] = static_cast<T>(sumGX);
              dbeta[c] = static_cast<T>(sumG);
            }
            plan.eachChunk(true, [&](int64_t image, int64_t at, int64_t count, int64_t) {
              const GradRows<T> rows = rowsOf(image);
              for (int64_t from = at; from < at + count * C; from += C) {
                gradRow<T, kSilu>(x + from, dy + from, rows, C, dx + from);
              }
            });
          },
          plan.scratchBytes<T>(5)};
}

// Sum over i < n of term(i), in 32 lanes of the element type, the lanes in float64.
template <class T, class Term>
double laneSum(int64_t n, Term&& term) {
  T lanes[kBlock] = {};
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    for (int64_t j = 0; j < kBlock; ++j) lanes[j] += term(i + j);
  }
  for (int64_t j = 0; i + j < n; ++j) lanes[j] += term(i + j);
  double sum = 0;
  for (T lane : lanes) sum += lane;
  return sum;
}

struct RowPlan {
  int64_t channels, rows, blocks;

  explicit RowPlan(const Operand& x) : channels(x.dim(-1)), rows(channels ? x.size() / channels : 0) {
    blocks = (rows + kBlock - 1) / kBlock;
  }
  // fn(block, first row, past its last row), split over threads.
  template <class Fn>
  void eachBlock(Fn&& fn) const {
    parallelFor(blocks, 8192 / (kBlock * channels + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fn(i, i * kBlock, std::min(rows, (i + 1) * kBlock));
    });
  }
};

template <class T>
Bound bindLayerNormOf(const NodeSpec& node) {
  return {[plan = RowPlan(node.inputs[0]), eps = node.number("eps")](const Args& args) {
    const T *x = args.in[0].as<const T>(), *gamma = args.in[1].as<const T>(), *beta = args.in[2].as<const T>();
    T *y = args.out[0].as<T>(), *means = args.out[1].as<T>(), *rstds = args.out[2].as<T>();
    const int64_t C = plan.channels;
    plan.eachBlock([&](int64_t, int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const T* v = x + row * C;
        const double mean = laneSum<T>(C, [&](int64_t c) { return v[c]; }) / static_cast<double>(C);
        const T center = static_cast<T>(mean);
        const double rest = mean - static_cast<double>(center);
        const double spread = laneSum<T>(C, [&](int64_t c) { return (v[c] - center) * (v[c] - center); });
        const double variance = std::max(0.0, spread / static_cast<double>(C) - rest * rest);
        const T rstd = static_cast<T>(1 / std::sqrt(variance + eps));
        means[row] = center;
        rstds[row] = rstd;
        T* __restrict out = y + row * C;
        for (int64_t c = 0; c < C; ++c) out[c] = (v[c] - center) * rstd * gamma[c] + beta[c];
      }
    });
  }};
}

template <class T>
Bound bindLayerNormGradOf(const NodeSpec& node) {
  const RowPlan plan(node.inputs[0]);
  return {
      [plan](const Args& args) {
        const T *x = args.in[0].as<const T>(), *gamma = args.in[1].as<const T>();
        const T *means = args.in[2].as<const T>(), *rstds = args.in[3].as<const T>(), *dy = args.in[4].as<const T>();
        T *dx = args.out[0].as<T>(), *dgamma = args.out[1].as<T>(), *dbeta = args.out[2].as<T>();
        T* partials = reinterpret_cast<T*>(args.scratch);  // per block: sums of dy * xhat, then of dy
        const int64_t C = plan.channels;
        plan.eachBlock([&](int64_t block, int64_t first, int64_t last) {
          T* __restrict sumGX = partials + block * 2 * C, * __restrict sumG = sumGX + C;
          std::fill_n(sumGX, 2 * C, T{0});
          for (int64_t row = first; row < last; ++row) {
            const T *v = x + row * C, *g = dy + row * C;
            const T mean = means[row], rstd = rstds[row];
            const double sum = laneSum<T>(C, [&](int64_t c) { return g[c] * gamma[c]; });
            const double sumX = laneSum<T>(C, [&](int64_t c) { return g[c] * gamma[c] * ((v[c] - mean) * rstd); });
            const T b = static_cast<T>(sum / static_cast<double>(C)), d = static_cast<T>(sumX / static_cast<double>(C));
            T* __restrict out = dx + row * C;
            for (int64_t c = 0; c < C; ++c) {
              const T xhat = (v[c] - mean) * rstd;
              sumGX[c] += g[c] * xhat;
              sumG[c] += g[c];
              out[c] = rstd * (g[c] * gamma[c] - b - xhat * d);
            }
          }
        });
        parallelFor(C, 1 + 8192 / (plan.blocks + 1), [&](int64_t begin, int64_t end) {
          for (int64_t c = begin; c < end; ++c) {
            double sumGX = 0, sumG = 0;
            for (int64_t block = 0; block < plan.blocks; ++block) {
              sumGX += partials[block * 2 * C + c];
              sumG += partials[block * 2 * C + C + c];
            }
            dgamma[c] = static_cast<T>(sumGX);
            dbeta[c] = static_cast<T>(sumG);
          }
        });
      },
      static_cast<size_t>(plan.blocks * 2 * plan.channels) * sizeof(T)};
}

}  // namespace

Bound bindGroupNorm(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return node.flag("silu") ? bindGroupNormOf<T, true>(node) : bindGroupNormOf<T, false>(node);
  });
}

Bound bindGroupNormGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return node.flag("silu") ? bindGroupNormGradOf<T, true>(node) : bindGroupNormGradOf<T, false>(node);
  });
}

Bound bindLayerNorm(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindLayerNormOf<decltype(tag)>(node); });
}

Bound bindLayerNormGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindLayerNormGradOf<decltype(tag)>(node); });
}

}  // namespace refl::REFL_ISA
