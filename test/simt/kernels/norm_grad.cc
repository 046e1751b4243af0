// Layer norm and the gradients of both normalisations against float64: rows of a warp and of a block, chunks, every
// vector width, odd sizes, in place.
#include <cmath>

#include "harness.h"
#include "norm/group_norm.h"
#include "norm/layer_norm.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

/** The mean and 1 / deviation of elements at(0) to at(count - 1). */
template <class At>
std::pair<double, double> moments(size_t count, double eps, At&& at) {
  double sum = 0, square = 0;
  for (size_t i = 0; i < count; ++i) sum += at(i);
  const double mean = sum / static_cast<double>(count);
  for (size_t i = 0; i < count; ++i) square += (at(i) - mean) * (at(i) - mean);
  return {mean, 1 / std::sqrt(square / static_cast<double>(count) + eps)};
}

double slope(double u, bool silu) {
  const double s = 1 / (1 + std::exp(-u));
  return silu ? s + u * s * (1 - s) : 1;
}

template <class T>
void layer(int rows, int channels, double low, double high, double limit, size_t skip) {
  const size_t size = static_cast<size_t>(rows) * channels;
  const Input<T> x(uniform(size, low, high, 61), skip), dy(uniform(size, -1, 1, 62), skip);
  const Input<float> gamma(uniform(channels, 0.5, 2, 63)), beta(uniform(channels, -1, 1, 64));
  Output<T> y(size, skip), dx(size, skip);
  Output<float> mean(rows), rstd(rows), dgamma(channels), dbeta(channels);
  check(layerNorm(rows, channels, x.data(), gamma.data(), beta.data(), 1e-5f, y.data(), mean.data(), rstd.data(),
                  nullptr));
  const Values xs = x.values(), ds = dy.values(), gs = gamma.values(), bs = beta.values();
  Values ys(size), means, rstds, dxs(size), dgs(channels), dbs(channels);
  for (size_t at = 0; at < size; at += channels) {
    const auto [centre, scale] = moments(channels, 1e-5, [&](size_t i) { return xs[at + i]; });
    means.push_back(centre);
    rstds.push_back(scale);
    double sum = 0, sumX = 0;
    for (int c = 0; c < channels; ++c) {
      const double xhat = (xs[at + c] - centre) * scale;
      ys[at + c] = xhat * gs[c] + bs[c];
      sum += gs[c] * ds[at + c] / channels;
      sumX += gs[c] * ds[at + c] * xhat / channels;
      dgs[c] += ds[at + c] * xhat;
      dbs[c] += ds[at + c];
    }
    for (int c = 0; c < channels; ++c)
      dxs[at + c] = scale * (gs[c] * ds[at + c] - sum - (xs[at + c] - centre) * scale * sumX);
  }
  expectClose(mean.values(), means, limit, "mean");
  expectClose(rstd.values(), rstds, limit, "rstd");
  expectRounded<T>(y.values(), ys, limit, 2, "y");
  const Input<float> scratch(Values(layerNormGradScratch(rows, channels) / sizeof(float), NAN));
  const auto backward = [&](const T* from, T* to) {
    check(layerNormGrad(rows, channels, x.data(), gamma.data(), mean.data(), rstd.data(), from, to, dgamma.data(),
                        dbeta.data(), scratch.data(), nullptr));
  };
  backward(dy.data(), dx.data());
  expectRounded<T>(dx.values(), dxs, limit, 2, "dx");
  expectClose(dgamma.values(), dgs, limit, "dgamma");
  expectClose(dbeta.values(), dbs, limit, "dbeta");
  backward(dy.data(), dy.data());
  if (dy.values() != dx.values()) fail("another dx in place");
}

template <class T>
void group(const GroupNormShape& s, bool silu, size_t skip) {
  const size_t size = static_cast<size_t>(s.images) * s.pixels * s.channels;
  const int perGroup = s.channels / s.groups;
  const Input<T> x(uniform(size, -1, 1, 71), skip), dy(uniform(size, -1, 1, 72), skip);
  const Input<float> gamma(uniform(s.channels, 0.5, 2, 73)), beta(uniform(s.channels, -1, 1, 74));
  const Values xs = x.values(), ds = dy.values(), gs = gamma.values(), bs = beta.values();
  Values means, rstds, wanted(size), dgs(s.channels), dbs(s.channels);
  for (int n = 0; n < s.images; ++n)
    for (int g = 0; g < s.groups; ++g) {
      const size_t count = static_cast<size_t>(s.pixels) * perGroup;
      const auto at = [&](size_t i) {
        return (static_cast<size_t>(n) * s.pixels + i / perGroup) * s.channels + g * perGroup + i % perGroup;
      };
      const auto [mean, rstd] = moments(count, 1e-5, [&, at](size_t i) { return xs[at(i)]; });
      means.push_back(mean);
      rstds.push_back(rstd);
      const auto xhat = [&, m = mean, r = rstd](size_t i) { return (xs[at(i)] - m) * r; };
      const auto slopeOf = [&](size_t i) {
        const int c = g * perGroup + static_cast<int>(i % perGroup);
        return ds[at(i)] * slope(xhat(i) * gs[c] + bs[c], silu);
      };
      double sum = 0, sumX = 0;
      for (size_t i = 0; i < count; ++i) {
        const int c = g * perGroup + static_cast<int>(i % perGroup);
        const double v = slopeOf(i);
        dgs[c] += v * xhat(i);
        dbs[c] += v;
        sum += gs[c] * v / static_cast<double>(count);
        sumX += gs[c] * v * xhat(i) / static_cast<double>(count);
      }
      for (size_t i = 0; i < count; ++i)
        wanted[at(i)] = rstd * (gs[g * perGroup + i % perGroup] * slopeOf(i) - sum - xhat(i) * sumX);
    }
  const Input<float> mean(means), rstd(rstds), scratch(Values(groupNormGradScratch(s) / sizeof(float), NAN));
  Output<T> dx(size, skip);
  Output<float> dgamma(s.channels), dbeta(s.channels);
  const auto backward = [&](const T* from, T* to) {
    check(groupNormGrad(s, x.data(), gamma.data(), beta.data(), mean.data(), rstd.data(), from, silu, to, dgamma.data(),
                        dbeta.data(), scratch.data(), nullptr));
  };
  backward(dy.data(), dx.data());
  expectRounded<T>(dx.values(), wanted, 1e-5, 2, "dx");
  expectClose(dgamma.values(), dgs, 1e-5, "dgamma");
  expectClose(dbeta.values(), dbs, 1e-5, "dbeta");
  backward(dy.data(), dy.data());
  if (dy.values() != dx.values()) fail("another dx in place");
}

template <class T>
void add(const std::string& type) {
  const std::pair<int, int> sizes[] = {{1, 1}, {4, 1}, {3, 33}, {77, 40}, {9, 64}, {2, 1024}, {3, 1026}, {2, 2064}};
  for (const auto& [rows, channels] : sizes)
    addCase(type + " layer norm, " + std::to_string(rows) + " x " + std::to_string(channels),
            [r = rows, c = channels] { layer<T>(r, c, -1, 1, 1e-5, 0); });
  addCase(type + " layer norm, misaligned", [] { layer<T>(5, 48, -1, 1, 1e-5, 1); });
  const std::pair<const char*, GroupNormShape> shapes[] = {
      {"three channels a group", {2, 35, 96, 32}}, {"one channel a group", {1, 15, 8, 8}},
      {"one group of 5", {3, 12, 5, 1}},           {"10 channels a group", {1, 77, 40, 4}},
      {"16 channels a group", {3, 257, 32, 2}},    {"a single pixel", {2, 1, 12, 2}},
      {"wide pixels", {1, 19, 1100, 10}},          {"more groups than threads", {1, 17, 520, 260}},
  };
  for (const auto& [name, shape] : shapes)
    for (const bool silu : {false, true})
      addCase(type + " group norm, " + name + (silu ? ", SiLU" : ""), [=, s = shape] { group<T>(s, silu, 0); });
  addCase(type + " group norm, misaligned", [] { group<T>({1, 33, 32, 2}, true, 1); });
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  // A mean 300 times the deviation: x - mean keeps some 2e-5 of its value.
  addCase("f32 layer norm, a large mean", [] { layer<float>(4, 31, 100, 101, 1e-4, 0); });
  return true;
}();

}  // namespace
