// Binders of the optim family.
#include "optim/optim.h"

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

void requireFloat32(const NodeSpec& node, const Operand& operand) {
  if (operand.dtype != DType::f32) refuse(node, "ERR_DTYPE", "updates and returns float32 alone on CUDA");
}

/** A group of a node: its first tensor among the inputs, its number, and the size of its tensors. */
struct Group {
  size_t first, number;
  int count;
};

/** The groups of a node by the type of the tensor that they read, which is the one at `read` in a group. */
class Groups {
 public:
  Groups(const NodeSpec& node, size_t read) {
    const size_t fixed = node.op->inputs.size(), size = node.op->group.size();
    for (size_t i = fixed; i < node.inputs.size(); i += size) {
      const Operand& x = node.inputs[i + read];
      onFloat(x.dtype, node, [&](auto tag) { of(tag).push_back({i, (i - fixed) / size, narrow(node, x.size())}); });
    }
  }
  /** Calls fn(a value of the type, groups) for each type that occurs. */
  template <class Fn>
  cudaError_t each(Fn&& fn) const {
    cudaError_t error = f32_.empty() ? cudaSuccess : fn(float{}, f32_);
    if (error == cudaSuccess && !bf16_.empty()) error = fn(simt::bf16{}, bf16_);
    if (error == cudaSuccess && !f16_.empty()) error = fn(simt::f16{}, f16_);
    return error;
  }

 private:
  std::vector<Group>& of(float) { return f32_; }
  std::vector<Group>& of(simt::bf16) { return bf16_; }
  std::vector<Group>& of(simt::f16) { return f16_; }
  std::vector<Group> f32_, bf16_, f16_;
};

const float* scalar(const Args& a, size_t input) { return a.in[input].as<const float>(); }

/** Updates of one tensor from another: update(args, pairs). */
template <class Update>
Bound bindPairs(const NodeSpec& node, Update update) {
  const size_t fixed = node.op->inputs.size();
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (i < fixed || (i - fixed) % 2 == 0) requireFloat32(node, node.inputs[i]);
  return {[update, all = Groups(node, 1)](const Args& a) {
    return all.each([&](auto tag, const std::vector<Group>& groups) {
      using G = decltype(tag);
      std::vector<Pair<G>> pairs;
      for (const Group& group : groups)
        pairs.push_back({a.in[group.first].as<float>(), a.in[group.first + 1].as<const G>(), group.count});
      return update(a, pairs);
    });
  }};
}

/** Reductions of all tensors to one float: sum(tensors, partials, stream), then finish(partials, count, y, stream). */
template <class Sum, class Finish>
Bound bindReduction(const NodeSpec& node, Sum sum, Finish finish) {
  requireFloat32(node, node.outputs[0]);
  int64_t total = 0;
  for (const Operand& x : node.inputs) total += partialsOf(narrow(node, x.size()));
  const int count = narrow(node, total);
  const auto run = [sum, finish, count, all = Groups(node, 0)](const Args& a) {
    auto* partials = reinterpret_cast<double*>(a.scratch);
    double* to = partials;
    const cudaError_t error = all.each([&](auto tag, const std::vector<Group>& groups) {
      using G = decltype(tag);
      std::vector<Elements<G>> tensors;
      double* at = to;
      for (const Group& group : groups) {
        tensors.push_back({a.in[group.first].as<const G>(), group.count});
        to += partialsOf(group.count);
      }
      return sum(tensors, at, a.stream);
    });
    return error == cudaSuccess ? finish(partials, count, a.out[0].as<float>(), a.stream) : error;
  };
  return {run, static_cast<size_t>(count) * sizeof(double)};
}

}  // namespace

Bound bindAdamw(const NodeSpec& node) {
  const size_t fixed = node.op->inputs.size(), size = node.op->group.size();
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (i < fixed || (i - fixed) % size != 1) requireFloat32(node, node.inputs[i]);
  const std::vector<double>& decays = node.list("weightDecay");
  if (decays.size() * size != node.inputs.size() - fixed)
    refuse(node, "ERR_PROGRAM", "needs one weight decay for each group");
  const AdamwConstants constants = {node.number("beta1"), node.number("beta2"), node.number("eps")};
  const auto run = [constants, decays, all = Groups(node, 1)](const Args& a) {
    return all.each([&](auto tag, const std::vector<Group>& groups) {
      using G = decltype(tag);
      std::vector<AdamwGroup<G>> list;
      for (const Group& group : groups) {
        const Tensor* of = a.in + group.first;
        list.push_back({of[0].as<float>(), of[1].as<const G>(), of[2].as<float>(), of[3].as<float>(), group.count,
                        static_cast<float>(decays[group.number])});
      }
      return adamw(scalar(a, 0), scalar(a, 1), scalar(a, 2), scalar(a, 3), constants, list, a.scratch, a.stream);
    });
  };
  return {run, kAdamwScratch};
}

Bound bindEma(const NodeSpec& node) {
  return bindPairs(node,
                   [](const Args& a, const auto& pairs) { return ema(scalar(a, 0), scalar(a, 1), pairs, a.stream); });
}
Bound bindAccumulate(const NodeSpec& node) {
  return bindPairs(node, [](const Args& a, const auto& pairs) { return accumulate(scalar(a, 0), pairs, a.stream); });
}
Bound bindAssign(const NodeSpec& node) {
  return bindPairs(node, [](const Args& a, const auto& pairs) { return assign(scalar(a, 0), pairs, a.stream); });
}

Bound bindGlobalNorm(const NodeSpec& node) {
  const auto sum = [](const auto& tensors, double* partials, cudaStream_t stream) {
    return sumSquares(tensors, partials, stream);
  };
  return bindReduction(node, sum, finishNorm);
}
Bound bindAllFinite(const NodeSpec& node) {
  const auto sum = [](const auto& tensors, double* partials, cudaStream_t stream) {
    return countNonFinite(tensors, partials, stream);
  };
  return bindReduction(node, sum, finishFinite);
}

}  // namespace refl::cuda
