// Optimizer updates and reductions against float64: many tensors, more than a table holds, sizes around a vector and a
// piece, empty ones, and the flag.
#include "optim/optim.h"

#include <cmath>
#include <memory>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;
using Sizes = std::vector<int>;

namespace {

// Around a vector, a block's stride and a piece; some are empty.
const Sizes few = {5, 0, 8191, 8192, 8193, 1, 16390, 0, 1023, 4, 7, 8, 9, 0};

/** More small tensors than `most`, which a table holds, the empty one being its last. */
Sizes many(int most) {
  Sizes all;
  for (int i = 0; i < 2 * most + 1; ++i) all.push_back(i == most ? 0 : i % 5 + 1);
  return all;
}

template <class T>
using Tensors = std::vector<std::unique_ptr<Input<T>>>;

template <class T>
Tensors<T> tensorsOf(const Sizes& sizes, double low, double high, uint64_t seed) {
  Tensors<T> all;
  for (const int size : sizes) all.push_back(std::make_unique<Input<T>>(uniform(size, low, high, seed++)));
  return all;
}

template <class T>
Values joined(const Tensors<T>& tensors) {
  Values all;
  for (const auto& tensor : tensors)
    for (const double v : tensor->values()) all.push_back(v);
  return all;
}

const Values scratch(size_t bytes, size_t size) { return Values(bytes / size, NAN); }

template <class G>
void adamwStep(const Sizes& sizes, double flag, double number) {
  const Tensors<float> param = tensorsOf<float>(sizes, -1, 1, 100), m = tensorsOf<float>(sizes, -0.1, 0.1, 200),
                       v = tensorsOf<float>(sizes, 0, 0.1, 300);
  const Tensors<G> grad = tensorsOf<G>(sizes, -1, 1, 400);
  const Input<float> lr({0.01}), step({number}), scale({0.5}), ok({flag});
  const AdamwConstants c = {0.9, 0.98, 1e-6};
  std::vector<AdamwGroup<G>> groups;
  for (size_t i = 0; i < sizes.size(); ++i)
    groups.push_back(
        {param[i]->data(), grad[i]->data(), m[i]->data(), v[i]->data(), sizes[i], static_cast<float>(i % 3) * 0.125f});
  Values p1, m1, v1;
  for (size_t i = 0; i < sizes.size(); ++i)
    for (int k = 0; k < sizes[i]; ++k) {
      const double p = (*param[i])[k], g = 0.5 * simt::toFloat((*grad[i])[k]), rate = lr[0];
      const double mean = c.beta1 * (*m[i])[k] + (1 - c.beta1) * g;
      const double square = c.beta2 * (*v[i])[k] + (1 - c.beta2) * g * g;
      const double bias1 = 1 - std::pow(c.beta1, number), bias2 = 1 - std::pow(c.beta2, number);
      m1.push_back(mean);
      v1.push_back(square);
      p1.push_back(p - rate * groups[i].weightDecay * p - rate * mean / bias1 / (std::sqrt(square / bias2) + c.eps));
    }
  if (!(flag > 0)) p1 = joined(param), m1 = joined(m), v1 = joined(v);
  const Input<float> factors(scratch(kAdamwScratch, sizeof(float)));
  check(adamw(lr.data(), step.data(), scale.data(), ok.data(), c, groups, factors.data(), nullptr));
  const double limit = flag > 0 ? 1e-6 : 0;
  expectClose(joined(param), p1, limit, "param");
  expectClose(joined(m), m1, limit, "m");
  expectClose(joined(v), v1, limit, "v");
}

enum class Update { ema, accumulate, assign };

template <class G>
void updatePairs(Update kind, const Sizes& sizes, double flag) {
  const Tensors<float> target = tensorsOf<float>(sizes, -1, 1, 500);
  const Tensors<G> value = tensorsOf<G>(sizes, -1, 1, 600);
  const Input<float> factor({0.75}), ok({flag});
  std::vector<Pair<G>> pairs;
  for (size_t i = 0; i < sizes.size(); ++i) pairs.push_back({target[i]->data(), value[i]->data(), sizes[i]});
  const Values before = joined(target), read = joined(value);
  Values after = before;
  for (size_t i = 0; i < before.size(); ++i) {
    if (kind == Update::ema) after[i] = 0.75 * before[i] + 0.25 * read[i];
    if (kind == Update::accumulate) after[i] = before[i] + 0.75 * read[i];
    if (kind == Update::assign) after[i] = read[i];
  }
  const bool go = flag > 0 || kind == Update::accumulate;
  if (kind == Update::ema) check(ema(factor.data(), ok.data(), pairs, nullptr));
  if (kind == Update::accumulate) check(accumulate(factor.data(), pairs, nullptr));
  if (kind == Update::assign) check(assign(ok.data(), pairs, nullptr));
  expectClose(joined(target), go ? after : before, go && kind != Update::assign ? 1e-6 : 0, "target");
}

template <class G>
struct Reduction {
  Tensors<G> tensors;
  std::vector<Elements<G>> list;
  int partials = 0;
  explicit Reduction(Tensors<G> all) : tensors(std::move(all)) {
    for (const auto& it : tensors) {
      list.push_back({it->data(), static_cast<int>(it->size())});
      partials += partialsOf(list.back().count);
    }
  }
};

template <class G>
void norm(const Sizes& sizes, double size) {
  const Reduction<G> r(tensorsOf<G>(sizes, -size, size, 700));
  const Input<double> partials(scratch(r.partials * sizeof(double), sizeof(double)));
  Output<float> y(1);
  check(sumSquares(r.list, partials.data(), nullptr));
  check(finishNorm(partials.data(), r.partials, y.data(), nullptr));
  double sum = 0;
  for (const double v : joined(r.tensors)) sum += v * v;
  expectClose(y.values(), {std::sqrt(sum)}, 1e-6, "norm");
}

/** One value, put at each place in turn. */
template <class G>
void finite(const Sizes& sizes, double bad, const std::vector<std::pair<size_t, size_t>>& places) {
  const Reduction<G> r(tensorsOf<G>(sizes, -1, 1, 800));
  const Input<double> partials(scratch(r.partials * sizeof(double), sizeof(double)));
  const auto answer = [&] {
    Output<float> y(1);
    check(countNonFinite(r.list, partials.data(), nullptr));
    check(finishFinite(partials.data(), r.partials, y.data(), nullptr));
    return y[0];
  };
  if (answer() != 1) fail("all are finite");
  for (const auto& [tensor, element] : places) {
    G& at = (*r.tensors[tensor])[element];
    const G saved = at;
    at = simt::fromFloat<G>(static_cast<float>(bad));
    const float wanted = std::isfinite(bad) ? 1 : 0, got = answer();
    at = saved;
    if (got != wanted) fail("%g at element %zu of tensor %zu gives %g", bad, element, tensor, got);
  }
}

template <class G>
void add(const std::string& type, double largest) {
  addCase(type + " adamw", [] { adamwStep<G>(few, 1, 3); });
  addCase(type + " adamw, the first step", [] { adamwStep<G>({3}, 0.5, 1); });
  addCase(type + " adamw, more groups than a table", [] { adamwStep<G>(many(84), 1, 1000); });
  const std::pair<const char*, Update> updates[] = {
      {" ema", Update::ema}, {" accumulate", Update::accumulate}, {" assign", Update::assign}};
  for (const auto& [name, kind] : updates) {
    addCase(type + name, [k = kind] { updatePairs<G>(k, few, 1); });
    addCase(type + name + ", more pairs than a table", [k = kind] { updatePairs<G>(k, many(160), 1); });
  }
  for (const double flag : {0.0, -1.0, double(NAN)})
    addCase(type + " held back by " + std::to_string(flag), [=] {
      adamwStep<G>({9, 4}, flag, 2);
      for (const Update kind : {Update::ema, Update::assign, Update::accumulate}) updatePairs<G>(kind, {9, 4}, flag);
    });
  addCase(type + " norm", [=] { norm<G>(few, 1); });
  addCase(type + " norm, more tensors than a table", [=] { norm<G>(many(250), 1); });
  addCase(type + " norm of large values", [=] { norm<G>({777}, largest); });
  addCase(type + " norm of small values", [=] { norm<G>({777}, 1 / largest); });
  addCase(type + " norm of nothing", [=] { norm<G>({0, 0}, 1); });
  for (const double bad : {double(INFINITY), double(-INFINITY), double(NAN), largest})
    addCase(type + " finite, " + std::to_string(bad), [=] {
      finite<G>({3, 0, 8195, 1}, bad, {{0, 2}, {2, 0}, {2, 8191}, {2, 8194}, {3, 0}});
    });
}

const bool added = [] {
  add<float>("f32", 1e30);
  add<bf16>("bf16", 1e30);
  add<f16>("f16", 6e4);
  addCase("the largest float is finite", [] { finite<float>({1}, 3.4028234663852886e38, {{0, 0}}); });
  addCase("more partial sums than the last block has threads", [] {
    const Input<double> partials(uniform(2500, 0, 1, 900));
    Output<float> y(1);
    check(finishNorm(partials.data(), 2500, y.data(), nullptr));
    double sum = 0;
    for (const double v : partials.values()) sum += v;
    expectClose(y.values(), {std::sqrt(sum)}, 1e-6, "norm");
  });
  return true;
}();

}  // namespace
