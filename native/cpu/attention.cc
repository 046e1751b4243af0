// Attention and its gradient without the scores in memory: softmax(scale q k^T + bias) v, tile by tile.
//
// Forward, 4 N H Lq Lk D operations: a task is a block of queries of one head. It walks over blocks of keys, keeping each
// query's running maximum and sum and rescaling the output so far when the maximum grows. Keys and values are packed once
// a run; a task's working set (about 200 KB at D = 64) stays in the second-level cache.
//
// Backward, 10 N H Lq Lk D operations: a task is a range of keys of one head. It recomputes the probabilities of a block
// from the rows' log-sum-exp and does all five products with it. Where heads are too few for the threads, ranges of keys
// of one head leave partial dq, added in order. Batch elements that share a bias are one task's, in order.
//
// Everything accumulates in T. Exponentials are to the base 2, log2(e) being part of the scale.
#include <limits>

#include "cpu/gemm.h"
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {

namespace {

constexpr int64_t kQueries = 96, kKeys = 128, kGradBlock = 96;  // multiples of kTileRows, and but for the first of kPanel
constexpr double kLog2e = 1.4426950408889634;

// 2^x for x <= 0; under -126 as there, which is 0 beside the row's largest term. 1.1e-7 relative.
inline float exp2(float x) {
  x = x < -126.0f ? -126.0f : x;
  const float t = x + vec::kRound;
  const float f = x - (t - vec::kRound);
  const float p = vec::poly(f, 1.0f, 6.931469776e-01f, 2.402224208e-01f, 5.550733744e-02f, 9.671512661e-03f, 1.326472690e-03f);
  return vec::bits<float>(vec::bits<uint32_t>(p) + (vec::bits<uint32_t>(t) << 23));
}
inline double exp2(double x) { return std::exp2(x); }

struct Attention {
  int64_t batch, heads, queries, keys, size;  // `size` features a head
  double scale;
  bool causal;
  int64_t groups, biasHeads;  // of the bias; 0 without one

  int64_t width() const { return heads * size; }
  // Element of q, k or v where batch element n's head starts, `length` tokens an element.
  int64_t start(int64_t n, int64_t head, int64_t length) const { return n * length * width() + head * size; }
  int64_t biasStart(int64_t n, int64_t head) const {
    return (n % groups * biasHeads + (biasHeads == 1 ? 0 : head)) * queries * keys;
  }
};

Attention attentionOf(const NodeSpec& node) {
  const Operand &q = node.inputs[0], &k = node.inputs[1], &bias = node.inputs[3];
  const int64_t heads = node.integer("heads");
  return {q.dim(0), heads, q.dim(1), k.dim(1), q.dim(2) / heads, node.number("scale"), node.flag("causal"),
          bias.present ? bias.dim(0) : 0, bias.present ? bias.dim(1) : 0};
}

// Turns a row of scores into 2^(score - maximum), raising the running maximum and sum. Returns the factor by which what
// was accumulated under the old maximum shrinks.
template <class T>
T softmaxRow(T* s, int64_t n, T& maximum, T& sum) {
  T top = maximum;
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < n; j++) top = s[j] > top ? s[j] : top;
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < n; j++) {
    s[j] = exp2(s[j] - top);
    total += s[j];
  }
  const T factor = exp2(maximum - top);
  maximum = top;
  sum = sum * factor + total;
  return factor;
}

template <class T>
Bound bindForward(const Attention& a) {
  constexpr int64_t W = kLanes<T>, lds = kKeys + kRowGap;
  const int64_t threads = omp_get_max_threads(), width = roundUp(a.size, W), ldq = a.size + kRowGap;
  const int64_t keyBlocks = ceilDiv(a.keys, kKeys), queryBlocks = ceilDiv(a.queries, kQueries);
  const int64_t packedK = packedSize<T>(a.keys, a.size), packedV = width * a.keys, item = roundUp(packedK + packedV, W);
  const int64_t each = roundUp(kQueries * (ldq + lds + width), W);

  const auto pack = [=](const Args& args, T* packed, int64_t n, int64_t head, int64_t block) {
    const int64_t first = block * kKeys, count = std::min(kKeys, a.keys - first);
    T* to = packed + (n * a.heads + head) * item;
    const int64_t from = a.start(n, head, a.keys) + first * a.width();
    packColumns(count, a.size, args.in[1].as<T>() + from, a.width(), to + first * a.size);
    const T* v = args.in[2].as<T>() + from;
    packRows<T>(a.size, count, [&](int64_t k) { return v + k * a.width(); }, to + packedK + first * width);
  };

  const auto queryBlock = [=](const Args& args, const T* packed, T* scratch, int64_t n, int64_t head, int64_t block) {
    const int64_t first = block * kQueries, count = std::min(kQueries, a.queries - first);
    T *q = scratch, *scores = q + kQueries * ldq, *out = scores + kQueries * lds;
    T maximum[kQueries], sum[kQueries] = {};
    std::fill_n(maximum, kQueries, std::numeric_limits<T>::lowest());
    std::fill_n(out, count * width, T(0));
    const T scale = static_cast<T>(a.scale * kLog2e);
    const T* from = args.in[0].as<T>() + a.start(n, head, a.queries) + first * a.width();
    for (int64_t i = 0; i < count; i++) {
      for (int64_t d = 0; d < a.size; d++) q[i * ldq + d] = from[i * a.width() + d] * scale;
    }
    const T* bias = a.groups ? args.in[3].as<T>() + a.biasStart(n, head) + first * a.keys : nullptr;
    for (int64_t key = 0; key < a.keys && !(a.causal && key >= first + count); key += kKeys) {
      const int64_t keys = std::min(kKeys, a.keys - key), padded = roundUp(keys, W);
      multiply(count, keys, a.size, q, ldq, packed + key * a.size, false, scores, lds);
      for (int64_t i = 0; i < count; i++) {
        T* row = scores + i * lds;
        if (bias) {
          for (int64_t j = 0; j < keys; j++) row[j] += static_cast<T>(kLog2e) * bias[i * a.keys + key + j];
        }
        const int64_t visible = a.causal ? std::clamp<int64_t>(first + i + 1 - key, 0, keys) : keys;
        std::fill(row + visible, row + padded, -std::numeric_limits<T>::infinity());
        const T factor = softmaxRow(row, padded, maximum[i], sum[i]);
        if (factor != T(1)) {
          for (int64_t d = 0; d < width; d++) out[i * width + d] *= factor;
        }
      }
      multiply(count, a.size, keys, scores, lds, packed + packedK + key * width, true, out, width);
    }
    T* y = args.out[0].as<T>() + a.start(n, head, a.queries) + first * a.width();
    T* lse = args.out[1].as<T>() + (n * a.heads + head) * a.queries + first;
    for (int64_t i = 0; i < count; i++) {
      const T inverse = T(1) / sum[i];
      for (int64_t d = 0; d < a.size; d++) y[i * a.width() + d] = out[i * width + d] * inverse;
      lse[i] = (maximum[i] + std::log2(sum[i])) * static_cast<T>(1 / kLog2e);
    }
  };

  const auto run = [=](const Args& args) {
    T* scratch = reinterpret_cast<T*>(args.scratch);
    T* packed = scratch + threads * each;
    const int64_t items = a.batch * a.heads;
    parallelFor(items * keyBlocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; task++) {
        const int64_t at = task / keyBlocks;
        pack(args, packed, at / a.heads, at % a.heads, task % keyBlocks);
      }
    });
    parallelFor(items * queryBlocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; task++) {
        const int64_t at = task / queryBlocks;
        queryBlock(args, packed + at * item, scratch + each * omp_get_thread_num(), at / a.heads, at % a.heads,
                   task % queryBlocks);
      }
    });
  };
  return {run, static_cast<size_t>(threads * each + a.batch * a.heads * item) * sizeof(T)};
}

}  // namespace

Bound bindAttention(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindForward<decltype(tag)>(attentionOf(node)); });
}

}  // namespace refl::REFL_ISA
