// Optimizer updates over many tensors at once, and the two checks that gate them.
//
// The tensors of a node count as one long run of elements that threads split evenly, so a thousand small biases cost
// as little as one matrix. Updates are limited by memory: AdamW reads four and writes three streams.
#include <limits>

#include "cpu/support.h"

namespace refl::REFL_ISA {

namespace {

constexpr int64_t kGrain = 16384;

// Where each group of tensors begins in the run of all their elements; the last entry is the total.
std::vector<int64_t> startsOf(const NodeSpec& node) {
  std::vector<int64_t> starts{0};
  for (size_t i = node.op->inputs.size(); i < node.inputs.size(); i += node.op->group.size()) {
    starts.push_back(starts.back() + node.inputs[i].size());
  }
  return starts;
}

// Calls fn(group, begin, end) with the pieces of groups that lie in [begin, end) of the run.
template <class Fn>
void pieces(const std::vector<int64_t>& starts, int64_t begin, int64_t end, Fn&& fn) {
  auto next = std::upper_bound(starts.begin(), starts.end(), begin);
  for (int64_t at = begin; at < end; ++next) {
    const int64_t stop = std::min(end, *next);
    const auto group = next - starts.begin() - 1;
    if (at < stop) fn(static_cast<size_t>(group), at - starts[group], stop - starts[group]);
    at = stop;
  }
}

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

namespace {

// Reduces all tensors of a node: fn(elements, count) gives a double for each fixed chunk of the run, the chunks are
// added up in order, and finish(total) is the output.
template <class Fn, class Finish>
Bound reduceAll(const NodeSpec& node, Fn fn, Finish finish) {
  const std::vector<int64_t> starts = startsOf(node);
  const int64_t chunks = (starts.back() + kGrain - 1) / kGrain;
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [=](const Args& args) {
      auto* partial = reinterpret_cast<double*>(args.scratch);
      parallelFor(chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; c++) {
          double total = 0;
          const int64_t stop = std::min((c + 1) * kGrain, starts.back());
          pieces(starts, c * kGrain, stop, [&](size_t group, int64_t from, int64_t to) {
            total += fn(args.in[group].as<T>() + from, to - from);
          });
          partial[c] = total;
        }
      });
      double total = 0;
      for (int64_t c = 0; c < chunks; c++) total += partial[c];
      *args.out[0].as<T>() = static_cast<T>(finish(total));
    };
    return {run, static_cast<size_t>(chunks) * sizeof(double)};
  });
}

}  // namespace

Bound bindGlobalNorm(const NodeSpec& node) {
  const auto squares = [](const auto* x, int64_t n) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return total;
  };
  return reduceAll(node, squares, [](double total) { return std::sqrt(total); });
}

Bound bindAllFinite(const NodeSpec& node) {
  const auto bad = [](const auto* x, int64_t n) {
    constexpr auto most = std::numeric_limits<std::decay_t<decltype(*x)>>::max();
    int count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < n; i++) count += !(std::fabs(x[i]) <= most);
    return static_cast<double>(count);
  };
  return reduceAll(node, bad, [](double total) { return total == 0 ? 1.0 : 0.0; });
}

}  // namespace refl::REFL_ISA
