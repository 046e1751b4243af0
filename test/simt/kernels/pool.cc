// Pooling and its gradients against plain loops: windows that overlap, leave gaps or stick out, odd channels, ties and
// NaN.
#include "pool/pool.h"

#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

size_t sizeOf(const PoolShape& s) { return size_t{s.images} * s.height * s.width * s.channels; }
size_t pooledSizeOf(const PoolShape& s) { return size_t{s.images} * s.outHeight * s.outWidth * s.channels; }

/** Calls visit(result, element) for every element of every window, in reading order. */
template <class Fn>
void eachOfWindows(const PoolShape& s, Fn&& visit) {
  for (size_t i = 0; i < pooledSizeOf(s); ++i) {
    const size_t pixel = i / s.channels, channel = i % s.channels, image = pixel / (s.outHeight * s.outWidth);
    const int oy = static_cast<int>(pixel / s.outWidth % s.outHeight), ox = static_cast<int>(pixel % s.outWidth);
    for (int ky = 0; ky < s.kernelHeight; ++ky)
      for (int kx = 0; kx < s.kernelWidth; ++kx) {
        const int y = oy * s.strideY - s.top + ky, x = ox * s.strideX - s.left + kx;
        if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
        visit(i, ((image * s.height + y) * s.width + x) * s.channels + channel);
      }
  }
}

template <class T>
void expect(const Values& actual, const Values& wanted, const Values& naive, double factor, const char* what) {
  if (sizeof(T) == 4) return expectClose(actual, wanted, 1e-6, what);
  expectNoWorse(actual, wanted, naive, factor, what);
}

template <class T>
void average(const PoolShape& s) {
  const Input<T> x(uniform(sizeOf(s), -1, 1, 3)), dy(uniform(pooledSizeOf(s), -1, 1, 4));
  Output<T> y(pooledSizeOf(s)), dx(sizeOf(s));
  check(avgPool2d(s, x.data(), y.data(), nullptr));
  check(avgPool2dGrad(s, dy.data(), dx.data(), nullptr));
  const double share = 1.0 / (s.kernelHeight * s.kernelWidth);
  const Values xs = x.values(), ds = dy.values();
  Values mean(y.size()), meanNaive(y.size()), slope(dx.size()), slopeNaive(dx.size());
  eachOfWindows(s, [&](size_t i, size_t k) {
    mean[i] += xs[k] * share;
    meanNaive[i] = rounded<T>(meanNaive[i] + rounded<T>(xs[k] * share));
    slope[k] += ds[i] * share;
    slopeNaive[k] = rounded<T>(slopeNaive[k] + rounded<T>(ds[i] * share));
  });
  expect<T>(y.values(), mean, meanNaive, 2, "y");
  expect<T>(dx.values(), slope, slopeNaive, 3, "dx");
}

template <class T>
void maximum(const PoolShape& s, const Values& values) {
  const Input<T> x(values), dy(uniform(pooledSizeOf(s), -1, 1, 5));
  Output<T> y(pooledSizeOf(s)), dx(sizeOf(s));
  check(maxPool2d(s, x.data(), y.data(), nullptr));
  check(maxPool2dGrad(s, x.data(), dy.data(), dx.data(), nullptr));
  const Values xs = x.values(), ds = dy.values();
  Values best(y.size(), -INFINITY), slope(dx.size()), slopeNaive(dx.size());
  std::vector<long> winner(y.size(), -1);
  eachOfWindows(s, [&](size_t i, size_t k) {
    const bool wins = winner[i] < 0 || xs[k] > best[i] || std::isnan(xs[k]);
    if (wins) best[i] = xs[k];
    if (wins) winner[i] = static_cast<long>(k);
  });
  const Values ys = y.values();
  for (size_t i = 0; i < ys.size(); ++i) {
    if (ys[i] != best[i] && !(std::isnan(ys[i]) && std::isnan(best[i])))
      fail("y[%zu] is %g and should be %g", i, ys[i], best[i]);
    slope[winner[i]] += ds[i];
    slopeNaive[winner[i]] = rounded<T>(slopeNaive[winner[i]] + ds[i]);
  }
  expect<T>(dx.values(), slope, slopeNaive, 3, "dx");
}

/** Few different values, so that windows have ties; NaN and infinities where they are asked for. */
Values ties(size_t count, bool special) {
  Values all = uniform(count, 0, 5, 6);
  for (double& v : all) v = std::floor(v);
  if (special)
    for (size_t i = 0; i < count; i += 3) all[i] = i % 2 ? NAN : i % 4 ? INFINITY : -INFINITY;
  return all;
}

template <class T>
void add(const std::string& type) {
  const std::pair<const char*, PoolShape> shapes[] = {
      {"2x2", {2, 5, 6, 8, 3, 4, 2, 2, 2, 2, 0, 0}},
      {"vectors of channels", {3, 16, 5, 4, 2, 2, 2, 2, 2, 2, 0, 0}},
      {"overlapping windows", {1, 8, 9, 7, 4, 4, 3, 4, 2, 1, 0, 0}},
      {"gaps between windows", {1, 3, 9, 8, 3, 2, 2, 1, 3, 4, 0, 0}},
      {"one window", {2, 2, 3, 4, 1, 1, 3, 4, 3, 4, 0, 0}},
      {"1x1", {1, 1, 3, 4, 3, 4, 1, 1, 1, 1, 0, 0}},
      {"windows that stick out", {2, 3, 5, 6, 4, 4, 3, 3, 2, 2, 2, 1}},
      {"over a block", {1, 1, 17, 19, 16, 18, 2, 2, 1, 1, 0, 0}},
  };
  for (const auto& [name, shape] : shapes) {
    const PoolShape s = shape;
    const std::string rest = std::string(", ") + name;
    addCase(type + " average" + rest, [=] { average<T>(s); });
    addCase(type + " maximum" + rest, [=] { maximum<T>(s, uniform(sizeOf(s), -1, 1, 8)); });
    addCase(type + " maximum, ties" + rest, [=] { maximum<T>(s, ties(sizeOf(s), false)); });
    addCase(type + " maximum, not finite" + rest, [=] { maximum<T>(s, ties(sizeOf(s), true)); });
  }
  addCase(type + " maximum of -inf alone", [] {
    maximum<T>({1, 1, 2, 2, 1, 1, 2, 2, 2, 2, 0, 0}, Values(4, -INFINITY));
  });
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  return true;
}();

}  // namespace
