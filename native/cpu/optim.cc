// Optimizer updates over many tensors at once, and the two checks that gate them.
// Updates are limited by memory: AdamW reads four and writes three streams.
#include <limits>

#include "cpu/groups.h"

namespace refl::REFL_ISA {

namespace {

template <class T>
double scalar(const Tensor& t) {
  return static_cast<double>(*t.as<T>());
}

// Runs prepare<T>(args), then `update(prepared, tensors of the group, group, begin, end)` over all elements. With a
// flag among the inputs (`ok`), nothing is touched unless it is positive: NaN counts as no.
template <class Prepare, class Update>
Bound updateAll(const NodeSpec& node, int flag, Prepare prepare, Update update) {
  const std::vector<int64_t> starts = startsOf(node);
  const size_t fixed = node.op->inputs.size(), size = node.op->group.size();
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [=](const Args& args) {
      if (flag >= 0 && !(scalar<T>(args.in[flag]) > 0)) return;
      const auto factors = prepare(tag, args.in);
      parallelFor(starts.back(), kGrain, [&](int64_t begin, int64_t end) {
        pieces(starts, begin, end, [&](size_t group, int64_t from, int64_t to) {
          update(tag, factors, args.in + fixed + group * size, group, from, to);
        });
      });
    };
    return {run, 0};
  });
}

}  // namespace

// PyTorch's AdamW. The factors of a step are worked out in double, the elements in their own type.
Bound bindAdamw(const NodeSpec& node) {
  const double beta1 = node.number("beta1"), beta2 = node.number("beta2"), epsilon = node.number("eps");
  struct Factors {
    double lr, scale, step, root;
  };
  const auto prepare = [=](auto tag, const Tensor* in) {
    using T = decltype(tag);
    const double lr = scalar<T>(in[0]), step = scalar<T>(in[1]);
    return Factors{lr, scalar<T>(in[2]), lr / (1 - std::pow(beta1, step)), 1 / std::sqrt(1 - std::pow(beta2, step))};
  };
  const auto update = [=, decays = node.list("weightDecay")](auto tag, const Factors& f, const Tensor* tensors,
                                                             size_t group, int64_t begin, int64_t end) {
    using T = decltype(tag);
    T* param = tensors[0].as<T>();
    const T* grad = tensors[1].as<T>();
    T* m = tensors[2].as<T>();
    T* v = tensors[3].as<T>();
    const T b1 = static_cast<T>(beta1), b2 = static_cast<T>(beta2), eps = static_cast<T>(epsilon);
    const T rest1 = static_cast<T>(1 - beta1), rest2 = static_cast<T>(1 - beta2);
    const T keep = static_cast<T>(1 - f.lr * decays[group]), scale = static_cast<T>(f.scale);
    const T step = static_cast<T>(f.step), root = static_cast<T>(f.root);
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
      const T g = scale * grad[i];
      const T mean = b1 * m[i] + rest1 * g;
      const T square = b2 * v[i] + rest2 * (g * g);
      m[i] = mean;
      v[i] = square;
      param[i] = keep * param[i] - step * mean / (std::sqrt(square) * root + eps);
    }
  };
  return updateAll(node, 3, prepare, update);
}

Bound bindEma(const NodeSpec& node) {
  const auto prepare = [](auto tag, const Tensor* in) { return 1 - scalar<decltype(tag)>(in[0]); };
  const auto update = [](auto tag, double rate, const Tensor* tensors, size_t, int64_t begin, int64_t end) {
    using T = decltype(tag);
    T* average = tensors[0].as<T>();
    const T* value = tensors[1].as<T>();
    const T r = static_cast<T>(rate);
#pragma omp simd
    for (int64_t i = begin; i < end; i++) average[i] += r * (value[i] - average[i]);
  };
  return updateAll(node, 1, prepare, update);
}

Bound bindAccumulate(const NodeSpec& node) {
  const auto prepare = [](auto tag, const Tensor* in) { return scalar<decltype(tag)>(in[0]); };
  const auto update = [](auto tag, double scale, const Tensor* tensors, size_t, int64_t begin, int64_t end) {
    using T = decltype(tag);
    T* total = tensors[0].as<T>();
    const T* value = tensors[1].as<T>();
    const T s = static_cast<T>(scale);
#pragma omp simd
    for (int64_t i = begin; i < end; i++) total[i] += s * value[i];
  };
  return updateAll(node, -1, prepare, update);
}

Bound bindAssign(const NodeSpec& node) {
  const auto prepare = [](auto, const Tensor*) { return 0; };
  const auto update = [](auto tag, int, const Tensor* tensors, size_t, int64_t begin, int64_t end) {
    using T = decltype(tag);
    const T* value = tensors[1].as<T>();
    std::copy(value + begin, value + end, tensors[0].as<T>() + begin);
  };
  return updateAll(node, 0, prepare, update);
}

Bound bindGlobalNorm(const NodeSpec& node) {
  const auto squares = [](auto tag, const Tensor* in, int64_t begin, int64_t end) {
    const auto* x = in->as<decltype(tag)>();
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = begin; i < end; i++) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return total;
  };
  return reduceAll(node, squares, [](double total) { return std::sqrt(total); });
}

Bound bindAllFinite(const NodeSpec& node) {
  const auto bad = [](auto tag, const Tensor* in, int64_t begin, int64_t end) {
    using T = decltype(tag);
    const T* x = in->as<T>();
    constexpr T most = std::numeric_limits<T>::max();
    int count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t i = begin; i < end; i++) count += !(std::fabs(x[i]) <= most);
    return static_cast<double>(count);
  };
  return reduceAll(node, bad, [](double total) { return total == 0 ? 1.0 : 0.0; });
}

}  // namespace refl::REFL_ISA
