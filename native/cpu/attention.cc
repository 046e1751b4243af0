// Attention and its gradient without the scores in memory: softmax(scale q k^T + bias) v, tile by tile.
//
// Forward, 4 N H Lq Lk D operations: a task is a block of queries of one head. It walks over blocks of keys, keeping
// each query's running maximum and sum and rescaling the output so far when the maximum grows. Keys and values are
// packed once a run; a task's working set (about 200 KB at D = 64) stays in the second-level cache.
//
// Backward, 10 N H Lq Lk D operations: a task is a range of keys of one head. It recomputes the probabilities of a
// block from the rows' log-sum-exp and does all five products with it. Where heads are too few for the threads, ranges
// of keys of one head leave partial dq, added in order. Batch elements that share a bias are one task's, in order.
//
// Everything accumulates in T. Exponentials are to the base 2, log2(e) being part of the scale.
#include <limits>

#include "cpu/gemm.h"
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {

namespace {

constexpr int64_t kQueries = 96, kKeys = 128,
                  kGradBlock = 96;  // multiples of kTileRows, and but for the first of kPanel
constexpr double kLog2e = 1.4426950408889634;

// 2^x for x <= 0; under -126 as there, which is 0 beside the row's largest term. 1.1e-7 relative.
inline float exp2(float x) {
  x = x < -126.0f ? -126.0f : x;
  const float t = x + vec::kRound;
  const float f = x - (t - vec::kRound);
  const float p =
      vec::poly(f, 1.0f, 6.931469776e-01f, 2.402224208e-01f, 5.550733744e-02f, 9.671512661e-03f, 1.326472690e-03f);
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
  return {q.dim(0),
          heads,
          q.dim(1),
          k.dim(1),
          q.dim(2) / heads,
          node.number("scale"),
          node.flag("causal"),
          bias.present ? bias.dim(0) : 0,
          bias.present ? bias.dim(1) : 0};
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
    packRows<T>(
        a.size, count, [&](int64_t k) { return v + k * a.width(); }, to + packedK + first * width);
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

// The gradient's scratch of one thread.
template <class T>
struct GradScratch {
  // Of one head: q^T and dy^T as panels over queries; q and dy as panels of each block of queries; dq in rows.
  T *columnsQ, *columnsDy, *rowsQ, *rowsDy, *dq;
  T *lse, *delta;  // a query: log-sum-exp to the base 2, and sum(y dy); padded
  // Of one block of keys: k and v in rows, k as panels, and the sums of dk and dv.
  T *k, *v, *rowsK, *dk, *dv;
  T *p, *ds, *turned;  // of a block of keys by a block of queries, and ds with rows of queries

  static constexpr int64_t kLd = kGradBlock + kRowGap;

  // Lays the arrays out from `base`, unless that is null; returns the elements they take.
  int64_t place(const Attention& a, T* base) {
    const int64_t queries = roundUp(a.queries, kGradBlock), width = roundUp(a.size, kLanes<T>), ld = a.size + kRowGap;
    int64_t taken = 0;
    const auto take = [&](T*& to, int64_t elements) {
      if (base) to = base + taken;
      taken += roundUp(elements, kLanes<T>);
    };
    for (T** to : {&columnsQ, &columnsDy}) take(*to, queries * a.size);
    for (T** to : {&rowsQ, &rowsDy, &dq}) take(*to, queries * width);
    for (T** to : {&lse, &delta}) take(*to, queries);
    for (T** to : {&k, &v}) take(*to, kGradBlock * ld);
    for (T** to : {&rowsK, &dk, &dv}) take(*to, kGradBlock * width);
    for (T** to : {&p, &ds, &turned}) take(*to, kGradBlock * kLd);
    return taken;
  }
};

// Into how many ranges the keys of a head are cut so that `units` heads keep all threads about equally busy.
int64_t keyRanges(int64_t units, int64_t blocks, int64_t threads) {
  int64_t best = 1;
  double most = 0;
  for (int64_t ranges = 1; ranges <= std::min<int64_t>(blocks, 2 * threads); ranges++) {
    const int64_t tasks = units * ranges;
    const double busy = static_cast<double>(tasks) / static_cast<double>(ceilDiv(tasks, threads) * threads);
    if (busy > most + 0.05) {
      best = ranges;
      most = busy;
    }
  }
  return best;
}

// Packs q, dy and what the softmax needs of one head.
template <class T>
void loadQueries(const Attention& a, const Args& args, int64_t n, int64_t head, const GradScratch<T>& s) {
  const int64_t width = roundUp(a.size, kLanes<T>), from = a.start(n, head, a.queries);
  const T *q = args.in[0].as<T>() + from, *y = args.in[4].as<T>() + from, *dy = args.in[6].as<T>() + from;
  const T* lse = args.in[5].as<T>() + (n * a.heads + head) * a.queries;
  packColumns(a.queries, a.size, q, a.width(), s.columnsQ);
  packColumns(a.queries, a.size, dy, a.width(), s.columnsDy);
  for (int64_t i = 0; i < a.queries; i += kGradBlock) {
    const int64_t count = std::min(kGradBlock, a.queries - i);
    packRows<T>(
        a.size, count, [&](int64_t r) { return q + (i + r) * a.width(); }, s.rowsQ + i * width);
    packRows<T>(
        a.size, count, [&](int64_t r) { return dy + (i + r) * a.width(); }, s.rowsDy + i * width);
  }
  for (int64_t i = 0; i < roundUp(a.queries, kGradBlock); i++) {
    T sum = 0;
    for (int64_t d = 0; d < a.size && i < a.queries; d++) sum += y[i * a.width() + d] * dy[i * a.width() + d];
    s.delta[i] = sum;
    s.lse[i] = i < a.queries ? lse[i] * static_cast<T>(kLog2e) : T(0);
  }
}

// Copies k and v of a block of keys, and zeroes its sums.
template <class T>
void loadKeys(const Attention& a, const Args& args, int64_t n, int64_t head, int64_t key, int64_t count,
              const GradScratch<T>& s) {
  const int64_t width = roundUp(a.size, kLanes<T>), ld = a.size + kRowGap;
  const int64_t from = a.start(n, head, a.keys) + key * a.width();
  const T *k = args.in[1].as<T>() + from, *v = args.in[2].as<T>() + from;
  for (int64_t j = 0; j < count; j++) {
    std::copy_n(k + j * a.width(), a.size, s.k + j * ld);
    std::copy_n(v + j * a.width(), a.size, s.v + j * ld);
  }
  packRows<T>(
      a.size, count, [&](int64_t j) { return s.k + j * ld; }, s.rowsK);
  std::fill_n(s.dk, count * width, T(0));
  std::fill_n(s.dv, count * width, T(0));
}

// Adds what `keys` keys from `key` on and `queries` queries from `query` on give to dk, dv, dq and dbias (null if
// none). Scores are held with rows of keys, as the products for dk and dv read them.
template <class T>
void gradBlock(const Attention& a, int64_t key, int64_t keys, int64_t query, int64_t queries, const T* bias, T* dbias,
               const GradScratch<T>& s) {
  constexpr int64_t ld = GradScratch<T>::kLd;
  const int64_t width = roundUp(a.size, kLanes<T>), ldk = a.size + kRowGap, padded = roundUp(queries, kLanes<T>);
  multiply(keys, queries, a.size, s.k, ldk, s.columnsQ + query * a.size, false, s.p, ld);
  multiply(keys, queries, a.size, s.v, ldk, s.columnsDy + query * a.size, false, s.ds, ld);
  const T scale = static_cast<T>(a.scale * kLog2e);
  const T *lse = s.lse + query, *delta = s.delta + query;
  for (int64_t j = 0; j < keys; j++) {
    T *p = s.p + j * ld, *ds = s.ds + j * ld;
    if (bias) {
      for (int64_t i = 0; i < queries; i++) p[i] += bias[(query + i) * a.keys + key + j] / static_cast<T>(a.scale);
    }
#pragma omp simd
    for (int64_t i = 0; i < padded; i++) {
      p[i] = exp2(p[i] * scale - lse[i]);
      ds[i] = p[i] * (ds[i] - delta[i]);
    }
    const int64_t hidden = a.causal ? std::clamp<int64_t>(key + j - query, 0, queries) : 0;
    std::fill_n(p, hidden, T(0));
    std::fill_n(ds, hidden, T(0));
  }
  transpose(keys, queries, s.ds, ld, [&](int64_t i) { return s.turned + i * ld; });
  for (int64_t i = 0; i < queries && dbias; i++) {
    T* to = dbias + (query + i) * a.keys + key;
    for (int64_t j = 0; j < keys; j++) to[j] += s.turned[i * ld + j];
  }
  multiply(keys, a.size, queries, s.p, ld, s.rowsDy + query * width, true, s.dv, width);
  multiply(keys, a.size, queries, s.ds, ld, s.rowsQ + query * width, true, s.dk, width);
  multiply(queries, a.size, keys, s.turned, ld, s.rowsK, true, s.dq + query * width, width);
}

// Writes rows of `width` to every head-th slice of a tensor, times `scale`.
template <class T>
void writeRows(const Attention& a, int64_t rows, const T* from, T scale, T* to) {
  const int64_t width = roundUp(a.size, kLanes<T>);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t d = 0; d < a.size; d++) to[i * a.width() + d] = from[i * width + d] * scale;
  }
}

template <class T>
Bound bindBackward(const Attention& a) {
  const int64_t threads = omp_get_max_threads(), width = roundUp(a.size, kLanes<T>);
  // A unit is the heads that share a bias matrix, or one head where there is no bias.
  const int64_t unitItems = a.groups ? a.groups : a.batch, unitHeads = a.groups ? a.biasHeads : a.heads;
  const int64_t units = unitItems * unitHeads, ranges = keyRanges(units, ceilDiv(a.keys, kGradBlock), threads);
  const int64_t each = GradScratch<T>().place(a, nullptr), sizeQ = a.batch * a.queries * a.width();

  const auto run = [=](const Args& args) {
    T* scratch = reinterpret_cast<T*>(args.scratch);
    T* partial = ranges > 1 ? scratch + threads * each : args.out[0].as<T>();
    parallelFor(units * ranges, 1, [&](int64_t begin, int64_t end) {
      GradScratch<T> s;
      s.place(a, scratch + each * omp_get_thread_num());
      for (int64_t task = begin; task < end; task++) {
        const int64_t unit = task / ranges, part = task % ranges;
        const Range range = partOf(a.keys, kGradBlock, part, ranges);
        const int64_t biasAt = unit * a.queries * a.keys;
        const T* bias = a.groups ? args.in[3].as<T>() + biasAt : nullptr;
        T* dbias = a.groups ? args.out[3].as<T>() + biasAt : nullptr;
        for (int64_t i = 0; i < a.queries && dbias; i++)
          std::fill_n(dbias + i * a.keys + range.begin, range.size(), T(0));
        for (int64_t n = unit / unitHeads; n < a.batch; n += unitItems) {
          for (int64_t head = unit % unitHeads; head < a.heads; head += unitHeads) {
            loadQueries(a, args, n, head, s);
            std::fill_n(s.dq, a.queries * width, T(0));
            for (int64_t key = range.begin; key < range.end; key += kGradBlock) {
              const int64_t keys = std::min(kGradBlock, range.end - key);
              loadKeys(a, args, n, head, key, keys, s);
              for (int64_t query = a.causal ? key : 0; query < a.queries; query += kGradBlock) {
                gradBlock(a, key, keys, query, std::min(kGradBlock, a.queries - query), bias, dbias, s);
              }
              const int64_t to = a.start(n, head, a.keys) + key * a.width();
              writeRows(a, keys, s.dk, static_cast<T>(a.scale), args.out[1].as<T>() + to);
              writeRows(a, keys, s.dv, T(1), args.out[2].as<T>() + to);
            }
            writeRows(a, a.queries, s.dq, static_cast<T>(a.scale),
                      partial + part * sizeQ + a.start(n, head, a.queries));
          }
        }
      }
    });
    if (ranges == 1) return;
    parallelFor(sizeQ, 4096, [&](int64_t begin, int64_t end) {
      T* dq = args.out[0].as<T>();
      for (int64_t i = begin; i < end; i++) {
        T sum = partial[i];
        for (int64_t part = 1; part < ranges; part++) sum += partial[part * sizeQ + i];
        dq[i] = sum;
      }
    });
  };
  return {run, static_cast<size_t>(threads * each + (ranges > 1 ? ranges * sizeQ : 0)) * sizeof(T)};
}

}  // namespace

Bound bindAttention(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindForward<decltype(tag)>(attentionOf(node)); });
}

Bound bindAttentionGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindBackward<decltype(tag)>(attentionOf(node)); });
}

}  // namespace refl::REFL_ISA
