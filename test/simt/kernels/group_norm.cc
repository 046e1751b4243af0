// Group norm, forward, against float64: both forms, every vector width, odd sizes.
#include "norm/group_norm.h"

#include <cmath>

#include "harness.h"

using namespace harness;
using refl::cuda::GroupNormShape;

namespace {

struct Result {
  std::vector<double> y, mean, rstd;
};

Result exactly(const GroupNormShape& s, const std::vector<double>& x, const std::vector<double>& gamma,
               const std::vector<double>& beta, double eps, bool silu) {
  Result r = {x, {}, {}};
  const int perGroup = s.channels / s.groups;
  for (int n = 0; n < s.images; ++n)
    for (int g = 0; g < s.groups; ++g) {
      const auto at = [&](int p, int c) {
        return (static_cast<size_t>(n) * s.pixels + p) * s.channels + g * perGroup + c;
      };
      double sum = 0, square = 0;
      for (int p = 0; p < s.pixels; ++p)
        for (int c = 0; c < perGroup; ++c) sum += x[at(p, c)];
      const double mean = sum / (s.pixels * perGroup);
      for (int p = 0; p < s.pixels; ++p)
        for (int c = 0; c < perGroup; ++c) square += (x[at(p, c)] - mean) * (x[at(p, c)] - mean);
      const double rstd = 1 / std::sqrt(square / (s.pixels * perGroup) + eps);
      r.mean.push_back(mean);
      r.rstd.push_back(rstd);
      for (int p = 0; p < s.pixels; ++p)
        for (int c = 0; c < perGroup; ++c) {
          const double u = (x[at(p, c)] - mean) * rstd * gamma[g * perGroup + c] + beta[g * perGroup + c];
          r.y[at(p, c)] = silu ? u / (1 + std::exp(-u)) : u;
        }
    }
  return r;
}

template <class T>
void compare(const GroupNormShape& s, bool silu, bool chunks, double low, double high, size_t skip, double limit) {
  const size_t size = static_cast<size_t>(s.images) * s.pixels * s.channels;
  const Input<T> x(uniform(size, low, high, 51), skip);
  const Input<float> gamma(uniform(s.channels, 0.5, 2, 52)), beta(uniform(s.channels, -1, 1, 53));
  Output<T> y(size, skip);
  Output<float> mean(s.images * s.groups), rstd(s.images * s.groups);
  const std::vector<double> none(groupNormScratch(s) / sizeof(float), NAN);
  const Input<float> scratch(none);
  const auto run = chunks ? refl::cuda::groupNormInChunks<T> : refl::cuda::groupNormForward<T>;
  check(run(s, x.data(), gamma.data(), beta.data(), 1e-5f, silu, y.data(), mean.data(), rstd.data(), scratch.data(),
            nullptr));
  const Result exact = exactly(s, x.values(), gamma.values(), beta.values(), 1e-5, silu);
  expectClose(mean.values(), exact.mean, limit, "mean");
  expectClose(rstd.values(), exact.rstd, limit, "rstd");
  expectRounded<T>(y.values(), exact.y, limit, 2, "y");
}

const bool added = [] {
  const struct {
    const char* name;
    GroupNormShape shape;
  } shapes[] = {
      {"three channels a group", {2, 35, 96, 32}},
      {"one channel a group", {1, 15, 8, 8}},
      {"one group of 5", {3, 12, 5, 1}},
      {"10 channels a group", {1, 77, 40, 4}},
      {"16 channels a group", {3, 257, 32, 2}},
      {"a single pixel", {2, 1, 12, 2}},
      {"more vectors than threads", {1, 19, 1100, 10}},
      {"more groups than threads", {1, 17, 260, 260}},
  };
  for (const auto& [name, shape] : shapes)
    for (const bool silu : {false, true})
      for (const bool chunks : {false, true}) {
        const std::string rest = std::string(", ") + name + (silu ? ", SiLU" : "") + (chunks ? ", in chunks" : "");
        addCase("f32" + rest, [=, s = shape] { compare<float>(s, silu, chunks, -1, 1, 0, 1e-5); });
        addCase("bf16" + rest, [=, s = shape] { compare<bf16>(s, silu, chunks, -1, 1, 0, 1e-5); });
        addCase("f16" + rest, [=, s = shape] { compare<f16>(s, silu, chunks, -1, 1, 0, 1e-5); });
      }
  addCase("f32, a group that does not fit", [] { compare<float>({1, 3100, 16, 2}, false, false, -1, 1, 0, 1e-5); });
  addCase("bf16, misaligned", [] { compare<bf16>({1, 33, 32, 2}, true, false, -1, 1, 1, 1e-5); });
  // A mean 300 times the deviation: x - mean keeps some 2e-5 of its value.
  for (const bool chunks : {false, true})
    addCase(std::string("f32, a large mean") + (chunks ? ", in chunks" : ""), [=] {
      compare<float>({1, 300, 8, 2}, false, chunks, 100, 101, 0, 1e-4);
    });
  return true;
}();

}  // namespace
