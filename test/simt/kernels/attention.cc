// Attention and its gradient against float64: every size of head, every form of the bias, lengths around the tiles.
#include "attention/attention.h"

#include <algorithm>
#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

struct Problem {
  AttentionShape s;
  Values q, k, v, bias, dy;
  size_t feature(int n, int length, int token, int head, int d) const {
    return ((static_cast<size_t>(n) * length + token) * s.heads + head) * s.size + d;
  }
  size_t row(int n, int head, int query) const { return (static_cast<size_t>(n) * s.heads + head) * s.queries + query; }
  size_t biasAt(int n, int head, int query, int key) const {
    const int entry = n % s.groups * s.biasHeads + (s.biasHeads == 1 ? 0 : head);
    return (static_cast<size_t>(entry) * s.queries + query) * s.keys + key;
  }
};

struct Result {
  Values y, lse, dq, dk, dv, dbias;
  std::vector<bool> masked;  // rows
};

/** What is computed, each value that a plain implementation would store rounded by `round`. The gradient takes y from
 * `stored` where that is given. */
template <class Round>
Result solve(const Problem& p, const Values* stored, Round&& round) {
  const AttentionShape& s = p.s;
  Result r = {Values(p.q.size()),
              Values(static_cast<size_t>(s.batch) * s.heads * s.queries),
              Values(p.q.size()),
              Values(p.k.size()),
              Values(p.k.size()),
              Values(p.bias.size()),
              std::vector<bool>(static_cast<size_t>(s.batch) * s.heads * s.queries)};
  Values score(s.keys), weight(s.keys);
  for (int n = 0; n < s.batch; ++n)
    for (int h = 0; h < s.heads; ++h)
      for (int i = 0; i < s.queries; ++i) {
        const int seen = s.causal ? i + 1 : s.keys;
        const auto rowOf = [&](const Values& of, int length, int token) {
          return of.data() + p.feature(n, length, token, h, 0);
        };
        const auto dot = [&](const double* a, const double* b) {
          double sum = 0;
          for (int d = 0; d < s.size; ++d) sum += a[d] * b[d];
          return sum;
        };
        const double *q = rowOf(p.q, s.queries, i), *dy = rowOf(p.dy, s.queries, i);
        double top = -INFINITY, sum = 0;
        for (int j = 0; j < seen; ++j) {
          score[j] = round(s.scale * dot(q, rowOf(p.k, s.keys, j)));
          if (s.groups) score[j] = round(score[j] + p.bias[p.biasAt(n, h, i, j)]);
          top = std::max(top, score[j]);
        }
        const bool masked = top == -INFINITY;
        for (int j = 0; j < seen; ++j) sum += weight[j] = masked ? 1 : round(std::exp(score[j] - top));
        r.masked[p.row(n, h, i)] = masked;
        r.lse[p.row(n, h, i)] = top + std::log(sum);
        double* y = r.y.data() + p.feature(n, s.queries, i, h, 0);
        for (int j = 0; j < seen; ++j) {
          weight[j] = round(weight[j] / sum);
          for (int d = 0; d < s.size; ++d) y[d] += weight[j] * rowOf(p.v, s.keys, j)[d];
        }
        for (int d = 0; d < s.size; ++d) y[d] = round(y[d]);
        const double delta = dot(stored ? rowOf(*stored, s.queries, i) : y, dy);
        for (int j = 0; j < seen && !masked; ++j) {
          const double ds = round(weight[j] * round(dot(dy, rowOf(p.v, s.keys, j)) - delta));
          if (s.groups) r.dbias[p.biasAt(n, h, i, j)] += ds;
          const size_t query = p.feature(n, s.queries, i, h, 0), key = p.feature(n, s.keys, j, h, 0);
          for (int d = 0; d < s.size; ++d) {
            r.dq[query + d] += s.scale * ds * p.k[key + d];
            r.dk[key + d] += s.scale * ds * p.q[query + d];
            r.dv[key + d] += weight[j] * dy[d];
          }
        }
      }
  for (Values* of : {&r.dq, &r.dk, &r.dv, &r.dbias})
    for (double& value : *of) value = round(value);
  return r;
}

template <class T>
void expect(const Values& actual, const Values& exact, const Values& naive, double factor, const char* what) {
  for (size_t i = 0; i < actual.size(); ++i)
    if (!std::isfinite(actual[i])) fail("%s[%zu] is %g and should be %g", what, i, actual[i], exact[i]);
  if (sizeof(T) == 4) return expectClose(actual, exact, 1e-5, what);
  expectNoWorse(actual, exact, naive, factor, what);
}

template <class T>
struct Tensors {
  Input<T> q, k, v, bias, dy;
};

/** `mask`: every fifth row of the bias is -inf, and every seventh element. */
template <class T>
void compare(const AttentionShape& s, size_t skip = 0, bool mask = false) {
  const size_t width = static_cast<size_t>(s.heads) * s.size;
  const size_t queries = s.batch * s.queries * width, keys = s.batch * s.keys * width;
  const size_t biases = static_cast<size_t>(s.groups) * s.biasHeads * s.queries * s.keys;
  Values bias = uniform(biases, -1, 1, 4);
  for (size_t i = 0; mask && i < biases; ++i)
    if (i / s.keys % 5 == 3 || i % 7 == 0) bias[i] = -INFINITY;
  const Tensors<T> of = {Input<T>(uniform(queries, -2, 2, 1), skip), Input<T>(uniform(keys, -2, 2, 2), skip),
                         Input<T>(uniform(keys, -1, 1, 3), skip), Input<T>(bias, skip),
                         Input<T>(uniform(queries, -1, 1, 5), skip)};
  const Problem p = {s, of.q.values(), of.k.values(), of.v.values(), of.bias.values(), of.dy.values()};
  const auto exactly = [](double x) { return x; };
  const auto naively = [](double x) { return rounded<T>(x); };
  const T* biasAt = s.groups ? of.bias.data() : nullptr;

  const Result first = solve(p, nullptr, exactly);
  Output<T> y(queries, skip);
  Output<float> lse(static_cast<size_t>(s.batch) * s.heads * s.queries);
  check(attention(s, AttentionInputs<T>{of.q.data(), of.k.data(), of.v.data(), biasAt}, y.data(), lse.data(), nullptr));

  // The gradient goes on from what forward left.
  const Values stored = y.values();
  const Result exact = solve(p, &stored, exactly), naive = solve(p, &stored, naively);
  expect<T>(stored, exact.y, naive.y, 2, "y");
  Values sums, exactSums;
  for (size_t i = 0; i < lse.size(); ++i) {
    if (exact.masked[i]) continue;
    sums.push_back(lse[i]);
    exactSums.push_back(exact.lse[i]);
  }
  expect<float>(sums, exactSums, exactSums, 1, "lse");

  Output<float> delta(lse.size());
  check(attentionDelta(s, y.data(), of.dy.data(), delta.data(), nullptr));
  Output<T> dq(queries, skip), dk(keys, skip), dv(keys, skip), dbias(biases, skip);
  const AttentionGradInputs<T> in = {of.q.data(),  of.k.data(), of.v.data(), biasAt,
                                     of.dy.data(), lse.data(),  delta.data()};
  check(attentionGradQueries(s, in, dq.data(), nullptr));
  check(attentionGradKeys(s, in, dk.data(), dv.data(), nullptr));
  expect<T>(dv.values(), exact.dv, naive.dv, 3, "dv");
  // One key has the whole weight whatever the scores: what is left of their slopes is rounding.
  if (s.keys > 1) {
    expect<T>(dq.values(), exact.dq, naive.dq, 3, "dq");
    expect<T>(dk.values(), exact.dk, naive.dk, 3, "dk");
  }
  if (!s.groups) return;
  check(attentionGradBias(s, in, dbias.data(), nullptr));
  expect<T>(dbias.values(), exact.dbias, naive.dbias, 3, "dbias");
}

AttentionShape shape(int batch, int heads, int queries, int keys, int size, bool causal = false, int groups = 0,
                     int biasHeads = 0) {
  return {batch, heads, queries, keys, size, static_cast<float>(1 / std::sqrt(size)), causal, groups, biasHeads};
}

template <class T>
void add(const std::string& type) {
  const struct {
    const char* name;
    AttentionShape shape;
  } shapes[] = {
      {"one feature", shape(3, 2, 19, 19, 1)},
      {"6 features, 77 keys", shape(1, 2, 33, 77, 6)},
      {"31 features", shape(1, 3, 17, 33, 31)},
      {"32 features, around a tile", shape(2, 1, 65, 64, 32)},
      {"33 features", shape(1, 1, 63, 31, 33)},
      {"40 features", shape(1, 3, 20, 77, 40)},
      {"64 features, several tiles", shape(1, 1, 129, 130, 64)},
      {"64 features, two heads", shape(3, 2, 16, 16, 64)},
      {"72 features", shape(1, 2, 33, 40, 72)},
      {"128 features", shape(1, 1, 65, 33, 128)},
      {"132 features", shape(1, 2, 33, 34, 132)},
      {"160 features", shape(2, 1, 34, 65, 160)},
      {"161 features", shape(1, 1, 7, 9, 161)},
      {"512 features", shape(1, 1, 33, 65, 512)},
      {"one token", shape(1, 2, 1, 1, 5)},
      {"one key", shape(3, 1, 5, 1, 8)},
      {"one query", shape(1, 1, 1, 257, 16)},
      {"causal", shape(2, 2, 70, 70, 10, true)},
      {"causal, 128 features", shape(1, 1, 67, 67, 128, true)},
      {"causal, 400 features", shape(1, 1, 34, 34, 400, true)},
      {"a bias a head", shape(4, 3, 16, 16, 10, false, 1, 3)},
      {"windows with a bias each", shape(6, 2, 17, 17, 6, false, 3, 2)},
      {"one bias for all heads", shape(2, 3, 5, 9, 4, false, 2, 1)},
      {"a bias, 64 features", shape(2, 1, 66, 33, 64, false, 2, 1)},
      {"a bias, 128 features", shape(1, 2, 33, 65, 128, false, 1, 1)},
      {"a bias, 150 features", shape(1, 1, 33, 20, 150, false, 1, 1)},
      {"a bias, 200 features", shape(1, 2, 33, 20, 200, false, 1, 2)},
      {"causal with a bias", shape(1, 1, 70, 70, 3, true, 1, 1)},
  };
  for (const auto& [name, shape] : shapes) addCase(type + ", " + name, [s = shape] { compare<T>(s); });
  addCase(type + ", misaligned", [] { compare<T>(shape(1, 2, 20, 18, 16, false, 1, 2), 1); });
  addCase(type + ", masked rows", [] { compare<T>(shape(2, 2, 21, 40, 8, false, 1, 2), 0, true); });
  addCase(type + ", masked rows, causal", [] { compare<T>(shape(1, 1, 40, 40, 8, true, 1, 1), 0, true); });
  addCase(type + ", a negative scale", [] {
    AttentionShape s = shape(1, 1, 9, 70, 8);
    s.scale = -0.5f;
    compare<T>(s);
  });
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  return true;
}();

}  // namespace
