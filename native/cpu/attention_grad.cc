// The gradient of attention, without the scores in memory: 10 N H Lq Lk D operations.
//
// A block of scores is recomputed from q and k, and made probabilities p = exp(scale q k^T + bias - lse) by the rows'
// log-sum-exp. With delta = sum(dy * y) over a row and ds = p (dy v^T - delta):
//
//   dv = p^T dy,   dk = scale ds^T q,   dq = scale ds k,   dbias = ds
//
// A task is one head of one batch element; where a bias is shared, it is all elements and heads that share one entry, in
// order, so that every sum has one owner and a fixed order. Within a task keys are taken in blocks of kKeys, whose
// dk and dv stay in the cache (about 400 KB at D = 64) while blocks of kQueries queries pass; dq accumulates in scratch.
// Everything accumulates in T.
#include <limits>

#include "cpu/gemm.h"
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {

namespace {

constexpr int64_t kQueries = 96, kKeys = 128;

template <class T>
class Gradient {
 public:
  explicit Gradient(const NodeSpec& node) {
    const Operand &q = node.inputs[0], &k = node.inputs[1], &bias = node.inputs[3];
    batch_ = q.dim(0);
    heads_ = node.integer("heads");
    queries_ = q.dim(1);
    keys_ = k.dim(1);
    features_ = q.dim(2);
    size_ = features_ / heads_;
    width_ = roundUp(size_, kLanes<T>);
    scale_ = static_cast<T>(node.number("scale"));
    causal_ = node.flag("causal");
    groups_ = bias.present ? bias.dim(0) : batch_;
    owners_ = bias.present ? bias.dim(1) : heads_;
    hasBias_ = bias.present;
  }

  size_t scratch() const { return static_cast<size_t>(omp_get_max_threads() * each()) * sizeof(T); }

  void run(const Args& args) const {
    parallelFor(groups_ * owners_, 1, [&](int64_t begin, int64_t end) {
      T* scratch = reinterpret_cast<T*>(args.scratch) + each() * omp_get_thread_num();
      for (int64_t task = begin; task < end; task++) {
        T* dbias = hasBias_ ? args.out[3].as<T>() + task * queries_ * keys_ : nullptr;
        if (dbias) std::fill_n(dbias, queries_ * keys_, T(0));
        const int64_t owner = task % owners_, first = owners_ == 1 ? 0 : owner, last = owners_ == 1 ? heads_ : owner + 1;
        for (int64_t n = task / owners_; n < batch_; n += groups_) {
          for (int64_t head = first; head < last; head++) headGradient(args, n, head, task, dbias, scratch);
        }
      }
    });
  }

 private:
  static constexpr int64_t lds = kKeys + kRowGap, ldt = kQueries + kRowGap;

  int64_t each() const {
    const int64_t packed = kKeys * (2 * size_ + width_) + 2 * kQueries * width_;
    return roundUp(packed + 2 * kQueries * lds + 2 * kKeys * ldt + 2 * kKeys * width_ + queries_ * (width_ + 1), kLanes<T>);
  }

  void headGradient(const Args& args, int64_t n, int64_t head, int64_t entry, T* dbias, T* scratch) const {
    const int64_t atQ = n * queries_ * features_ + head * size_, atK = n * keys_ * features_ + head * size_;
    const T *q = args.in[0].as<T>() + atQ, *k = args.in[1].as<T>() + atK, *v = args.in[2].as<T>() + atK;
    const T *y = args.in[4].as<T>() + atQ, *dy = args.in[6].as<T>() + atQ;
    const T* lse = args.in[5].as<T>() + (n * heads_ + head) * queries_;
    const T* bias = hasBias_ ? args.in[3].as<T>() + entry * queries_ * keys_ : nullptr;
    T *kColumns = scratch, *vColumns = kColumns + kKeys * size_, *kRows = vColumns + kKeys * size_;
    T *qRows = kRows + kKeys * width_, *dyRows = qRows + kQueries * width_;
    T *p = dyRows + kQueries * width_, *ds = p + kQueries * lds;
    T *pT = ds + kQueries * lds, *dsT = pT + kKeys * ldt;
    T *dk = dsT + kKeys * ldt, *dv = dk + kKeys * width_, *dq = dv + kKeys * width_, *delta = dq + queries_ * width_;

    std::fill_n(dq, queries_ * width_, T(0));
    for (int64_t i = 0; i < queries_; i++) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < size_; d++) sum += dy[i * features_ + d] * y[i * features_ + d];
      delta[i] = sum;
    }
    for (int64_t key = 0; key < keys_; key += kKeys) {
      const int64_t keys = std::min(kKeys, keys_ - key);
      packColumns(keys, size_, k + key * features_, features_, kColumns);
      packColumns(keys, size_, v + key * features_, features_, vColumns);
      packRows<T>(size_, keys, [&](int64_t j) { return k + (key + j) * features_; }, kRows);
      std::fill_n(dk, kKeys * width_, T(0));
      std::fill_n(dv, kKeys * width_, T(0));
      // Under a causal mask queries before the block's first key see none of it.
      for (int64_t first = causal_ ? key / kQueries * kQueries : 0; first < queries_; first += kQueries) {
        const int64_t count = std::min(kQueries, queries_ - first);
        const T *qBlock = q + first * features_, *dyBlock = dy + first * features_;
        multiply(count, keys, size_, qBlock, features_, kColumns, false, p, lds);
        multiply(count, keys, size_, dyBlock, features_, vColumns, false, ds, lds);
        for (int64_t i = 0; i < count; i++) {
          const int64_t row = first + i, at = row * keys_ + key;
          probabilities(p + i * lds, ds + i * lds, keys, causal_ ? std::clamp<int64_t>(row + 1 - key, 0, keys) : keys,
                        lse[row], delta[row], bias ? bias + at : nullptr, dbias ? dbias + at : nullptr);
        }
        transpose(count, keys, p, lds, [&](int64_t j) { return pT + j * ldt; });
        transpose(count, keys, ds, lds, [&](int64_t j) { return dsT + j * ldt; });
        packRows<T>(size_, count, [&](int64_t i) { return dyBlock + i * features_; }, dyRows);
        packRows<T>(size_, count, [&](int64_t i) { return qBlock + i * features_; }, qRows);
        multiply(keys, size_, count, pT, ldt, dyRows, true, dv, width_);
        multiply(keys, size_, count, dsT, ldt, qRows, true, dk, width_);
        multiply(count, size_, keys, ds, lds, kRows, true, dq + first * width_, width_);
      }
      copyOut(keys, dk, scale_, args.out[1].as<T>() + atK + key * features_);
      copyOut(keys, dv, T(1), args.out[2].as<T>() + atK + key * features_);
    }
    copyOut(queries_, dq, scale_, args.out[0].as<T>() + atQ);
  }

  // Turns a row of q k^T into probabilities and a row of dy v^T into ds; what the mask hides is 0 in both.
  void probabilities(T* p, T* ds, int64_t keys, int64_t visible, T lse, T delta, const T* bias, T* dbias) const {
    for (int64_t j = 0; j < visible; j++) p[j] = p[j] * scale_ - lse;
    for (int64_t j = 0; bias && j < visible; j++) p[j] += bias[j];
    for (int64_t j = 0; j < visible; j++) {
      p[j] = vec::exp(p[j]);
      ds[j] = p[j] * (ds[j] - delta);
    }
    std::fill(p + visible, p + keys, T(0));
    std::fill(ds + visible, ds + keys, T(0));
    for (int64_t j = 0; dbias && j < visible; j++) dbias[j] += ds[j];
  }

  void copyOut(int64_t rows, const T* from, T factor, T* to) const {
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t d = 0; d < size_; d++) to[i * features_ + d] = from[i * width_ + d] * factor;
    }
  }

  int64_t batch_, heads_, queries_, keys_, features_, size_, width_, groups_, owners_;
  T scale_;
  bool causal_, hasBias_;
};

}  // namespace

Bound bindAttentionGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    const Gradient<decltype(tag)> gradient(node);
    return {[gradient](const Args& args) { gradient.run(args); }, gradient.scratch()};
  });
}

}  // namespace refl::REFL_ISA
