// Cosines, cross entropy, the distance of directions and mean errors, with their gradients, against float64: whole
// vectors and not, several rows a warp and several warps a row, floors, and numbers beyond all others.
#include "reward/reward.h"

#include <algorithm>
#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

/** Calls pair(row of a, row of b, place of y) for each. */
template <class Fn>
void eachPair(const Vectors& s, Fn&& pair) {
  for (int n = 0; n < s.batches; ++n)
    for (int i = 0; i < s.k; ++i)
      for (int j = 0; j < s.l; ++j) pair(n * s.k + i, n * s.l + j, (n * s.k + i) * s.l + j);
}

double dot(const Values& x, int row, const Values& y, int other, int width) {
  double sum = 0;
  for (int i = 0; i < width; ++i) sum += x[row * width + i] * y[other * width + i];
  return sum;
}

Values inverseNorms(const Values& x, const Vectors& s) {
  Values all;
  for (size_t r = 0; r < x.size() / s.width; ++r)
    all.push_back(std::min(1 / std::sqrt(dot(x, r, x, r, s.width)), static_cast<double>(s.most)));
  return all;
}

template <class T>
void cosineCase(const Vectors& s) {
  const size_t rows = size_t(s.batches) * s.k, others = size_t(s.batches) * s.l, pairs = rows * s.l;
  const Input<T> a(uniform(rows * s.width, -1, 1, 41)), b(uniform(others * s.width, -0.5, 1, 42));
  Output<float> y(pairs), inverseA(rows), inverseB(others);
  check(cosines(s, a.data(), b.data(), y.data(), inverseA.data(), inverseB.data(), nullptr));
  const Values as = a.values(), bs = b.values(), ofA = inverseNorms(as, s), ofB = inverseNorms(bs, s);
  Values wanted(pairs);
  eachPair(s, [&](int i, int j, int at) { wanted[at] = dot(as, i, bs, j, s.width) * ofA[i] * ofB[j]; });
  expectClose(inverseA.values(), ofA, 1e-6, "inverse norms of a");
  expectClose(inverseB.values(), ofB, 1e-6, "inverse norms of b");
  expectClose(y.values(), wanted, 3e-6, "y");

  const Input<float> dy(uniform(pairs, -1, 1, 43));
  Output<T> da(a.size()), db(b.size());
  check(cosinesGrad(s, a.data(), b.data(), y.data(), inverseA.data(), inverseB.data(), dy.data(), da.data(), db.data(),
                    nullptr));
  const Values slopes = dy.values();
  Values wantedA(a.size()), wantedB(b.size());
  eachPair(s, [&](int i, int j, int at) {
    const double backA = ofA[i] < s.most ? wanted[at] * ofA[i] : 0, backB = ofB[j] < s.most ? wanted[at] * ofB[j] : 0;
    for (int e = 0; e < s.width; ++e) {
      const double x = as[i * s.width + e], z = bs[j * s.width + e];
      wantedA[i * s.width + e] += slopes[at] * ofA[i] * (z * ofB[j] - x * backA);
      wantedB[j * s.width + e] += slopes[at] * ofB[j] * (x * ofA[i] - z * backB);
    }
  });
  expectRounded<T>(da.values(), wantedA, 3e-6, 3, "da");
  expectRounded<T>(db.values(), wantedB, 3e-6, 3, "db");
}

template <class T>
void crossEntropyCase(int rows, int classes, bool numbered, bool scaled) {
  const Input<T> x(uniform(size_t(rows) * classes, -2, 2, 44));
  Values labels, shares(x.size());
  for (int r = 0; r < rows; ++r) labels.push_back(r % 5 == 3 ? classes : (r * 7 + 1) % classes);
  const Values raw = uniform(x.size(), -0.25, 1, 45);
  for (size_t i = 0; i < shares.size(); ++i) shares[i] = rounded<T>(std::max(raw[i], 0.0));
  const Input<int> number(labels);
  const Input<T> share(shares);
  const Input<float> logScale(Values{0.75});
  const Logits<T> s = {rows,
                       classes,
                       x.data(),
                       numbered ? number.data() : nullptr,
                       numbered ? nullptr : share.data(),
                       scaled ? logScale.data() : nullptr};
  const double scale = scaled ? std::exp(0.75) : 1;
  const Values xs = x.values();
  const Input<float> dy(Values{-1.5});
  double wanted = 0, wantedScale = 0;
  Values wantedX(x.size());
  for (int r = 0; r < rows; ++r) {
    double most = -INFINITY, sum = 0, all = 0;
    const auto z = [&](int i) { return scale * xs[r * classes + i]; };
    const auto of = [&](int i) { return numbered ? double(labels[r] == i) : shares[r * classes + i]; };
    for (int i = 0; i < classes; ++i) most = std::max(most, z(i));
    for (int i = 0; i < classes; ++i) sum += std::exp(z(i) - most), all += of(i);
    for (int i = 0; i < classes; ++i) {
      const double log = z(i) - most - std::log(sum), d = -1.5 / rows * (std::exp(log) * all - of(i));
      wanted -= of(i) * log / rows;
      wantedX[r * classes + i] = scale * d;
      wantedScale += d * z(i);
    }
  }
  Output<float> y(1), dLogScale(1);
  Output<T> dx(x.size());
  check(crossEntropy(s, y.data(), nullptr));
  check(crossEntropyGrad(s, dy.data(), dx.data(), dLogScale.data(), nullptr));
  expectClose(y.values(), {wanted}, 3e-6, "y");
  expectRounded<T>(dx.values(), wantedX, 3e-6, 3, "dx");
  // Of slopes of both signs that all but cancel.
  expectClose(dLogScale.values(), {wantedScale}, 3e-5, "dLogScale");
}

/** A class that is infinitely unlikely, and has no share, changes nothing. */
void unlikely() {
  Values values = {0.5, -INFINITY, 1}, shares = {0.25, 0, 0.75};
  const Input<float> x(values), share(shares);
  Output<float> y(1);
  check(crossEntropy<float>({1, 3, x.data(), nullptr, share.data(), nullptr}, y.data(), nullptr));
  expectClose(y.values(), {std::log(1 + std::exp(0.5)) - 0.75 * 0.5}, 1e-6, "y");
}

/** x / (|x| + 1e-10) and |x| of each position. */
struct Directions {
  Values unit, norm, inverse;
  Directions(const Values& x, int channels) : unit(x) {
    for (size_t p = 0; p < x.size() / channels; ++p) {
      norm.push_back(std::max(std::sqrt(dot(x, p, x, p, channels)), 1e-15));
      inverse.push_back(1 / (norm.back() + 1e-10));
      for (int c = 0; c < channels; ++c) unit[p * channels + c] *= inverse.back();
    }
  }
};

template <class T>
void distanceCase(const Features& s) {
  const size_t size = size_t(s.images) * s.positions * s.channels;
  Values first = uniform(size, -0.5, 1, 46);
  // The last position has no features: no direction, and no slope by its norm.
  if (size > size_t(s.channels)) std::fill(first.end() - s.channels, first.end(), 0.0);
  const Input<T> a(first), b(uniform(size, -0.25, 1, 47));
  const Input<float> weight(uniform(s.channels, 0, 1, 48)), dy(uniform(s.images, 0.5, 1, 49));
  const Values as = a.values(), ws = weight.values(), slopes = dy.values();
  const Directions ours(as, s.channels), theirs(b.values(), s.channels);
  Values wanted(s.images), wantedA(size);
  for (int p = 0; p < s.images * s.positions; ++p) {
    const int image = p / s.positions;
    double along = 0;
    const auto apart = [&](int c) { return ours.unit[p * s.channels + c] - theirs.unit[p * s.channels + c]; };
    for (int c = 0; c < s.channels; ++c) {
      wanted[image] += ws[c] * apart(c) * apart(c) / s.positions;
      along += ws[c] * apart(c) * as[p * s.channels + c];
    }
    for (int c = 0; c < s.channels; ++c)
      wantedA[p * s.channels + c] =
          2 * slopes[image] / s.positions * ours.inverse[p] *
          (ws[c] * apart(c) - as[p * s.channels + c] * along * ours.inverse[p] / ours.norm[p]);
  }
  Output<float> y(s.images), scratch(directionDistanceScratch<T>(s) / sizeof(float));
  Output<T> da(size);
  check(directionDistance(s, a.data(), b.data(), weight.data(), y.data(), scratch.data(), nullptr));
  check(directionDistanceGrad(s, a.data(), b.data(), weight.data(), dy.data(), da.data(), nullptr));
  expectClose(y.values(), wanted, 3e-6, "y");
  // The empty position's slopes are so steep that they would hide all others.
  const long rest = size > size_t(s.channels) ? long(size) - s.channels : 0;
  const Values got = da.values();
  for (const auto& [from, to] : {std::pair(0l, rest), {rest, long(size)}})
    if (from < to)
      expectRounded<T>(Values(got.begin() + from, got.begin() + to),
                       Values(wantedA.begin() + from, wantedA.begin() + to), 3e-6, 3, "da");
}

template <class T>
void errorCase(const std::vector<int>& counts, bool absolute) {
  std::vector<Input<T>*> all;
  std::vector<ErrorPair<T>> pairs;
  double wanted = 0;
  for (const int count : counts) {
    auto* a = new Input<T>(uniform(count, -1, 1, count));
    auto* b = new Input<T>(uniform(count, -1, 2, count + 1));
    all.insert(all.end(), {a, b});
    pairs.push_back({a->data(), b->data(), count});
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      const double d = a->values()[i] - b->values()[i];
      sum += absolute ? std::abs(d) : d * d;
    }
    wanted += sum / count;
  }
  Output<double> scratch(meanErrorScratch(pairs) / sizeof(double));
  Output<float> y(1);
  check(meanError(pairs, absolute, scratch.data(), y.data(), nullptr));
  expectClose(y.values(), {wanted}, 1e-6, "y");
  for (const auto* buffer : all) delete buffer;
}

template <class T>
void add(const std::string& type) {
  const Vectors vectors[] = {{1, 5, 3, 33, 1e8f},  {3, 2, 1, 64, 1e8f}, {1, 1, 1, 2, 1e8f},
                             {2, 1, 2, 520, 1e8f}, {9, 1, 1, 7, 1e8f},  {2, 2, 2, 8, 0.6f}};
  for (const Vectors& s : vectors)
    addCase(type + " cosines " + std::to_string(s.batches) + " x " + std::to_string(s.k) + " x " + std::to_string(s.l) +
                " of " + std::to_string(s.width),
            [=] { cosineCase<T>(s); });
  for (const auto& [rows, classes] : {std::pair(1, 1), {3, 2}, {7, 41}, {8, 32}, {21, 5}})
    for (const int kind : {0, 1, 2, 3})
      addCase(type + " cross entropy " + std::to_string(rows) + " x " + std::to_string(classes) +
                  (kind % 2 ? " of numbers" : " of shares") + (kind / 2 ? ", scaled" : ""),
              [=, r = rows, c = classes] { crossEntropyCase<T>(r, c, kind % 2, kind / 2); });
  const Features features[] = {{1, 1, 3}, {2, 15, 7}, {3, 77, 64}, {1, 9, 264}, {2, 70, 8}, {9, 2, 16}};
  for (const Features& s : features)
    addCase(type + " distance " + std::to_string(s.images) + " x " + std::to_string(s.positions) + " x " +
                std::to_string(s.channels),
            [=] { distanceCase<T>(s); });
  for (const bool absolute : {false, true}) {
    const std::string kind = absolute ? " absolute error" : " squared error";
    addCase(type + kind + " of one pair", [=] { errorCase<T>({1}, absolute); });
    addCase(type + kind + " of pairs", [=] { errorCase<T>({3, 8192, 77, 8197, 2600}, absolute); });
  }
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  addCase("an infinitely unlikely class", unlikely);
  addCase("squared error of more pairs than a table", [] { errorCase<float>(std::vector<int>(161, 5), false); });
  return true;
}();

}  // namespace
