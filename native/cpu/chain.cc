// Trees of elementwise operators as one pass over memory (lib/graph/fuse.ts). A thread goes over its part of the result
// in blocks of 512 elements: every step is a vector loop from blocks to a block, on a stack of blocks that the first
// level cache holds, so only the inputs and the result travel from and to memory. Operands that have the result's shape
// are read where they lie; others are spread, and 16-bit floats widened, as they are pushed.
//
// Arithmetic is float32, or float64 where the result is; where `rounds` says so, each step is rounded to the tensors'
// 16 bits. The steps are the functions of the operators' own kernels, each with its loop, so a chain gives the bits
// that its nodes would.
#include <vector>

#include "cpu/map.h"
#include "cpu/steps.h"
#include "exec/half.h"

namespace refl::REFL_ISA {

namespace {

// lib/graph/fuse.ts keeps to these.
constexpr size_t kMostInputs = 6;
constexpr int kMostDepth = 4;
constexpr int64_t kBlock = 512;

// What a step does: pushes an input or a number, or replaces one or two values on top of the stack.
template <class T>
struct Step {
  enum { kInput, kNumber, kUnary, kBinary } kind;
  size_t input;
  const double* numbers;
  StepFn<T> run;
};

template <class T>
class Chain {
 public:
  explicit Chain(const NodeSpec& node)
      : numbers_(node.list("numbers")),
        walk_(node.outputs[0].shape, operands(node)),
        dtype_(node.outputs[0].dtype),
        rounded_(node.flag("rounds") ? dtype_ : kOwn) {
    for (const Operand& x : node.inputs) {
      inputs_.push_back({x.dtype, x.dtype == kOwn && x.size() == node.outputs[0].size()});
      if (std::is_same_v<T, double> != (x.dtype == DType::f64) || x.dtype == DType::i32 || x.dtype == DType::u8)
        refuse(node, "ERR_DTYPE", "mixes dtypes");
      if (isHalf(rounded_) && x.dtype != rounded_)
        refuse(node, "ERR_DTYPE", "rounds to a dtype that not all its operands have");
    }
    parse(node);
  }

  void run(const Args& args) const {
    parallelFor(walk_.total(), kCostly, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; at += kBlock) block(args, at, std::min(kBlock, end - at));
    });
  }

 private:
  struct Input {
    DType dtype;
    bool whole;  // of the result's shape, in T: read where it lies
  };
  static constexpr DType kOwn = std::is_same_v<T, double> ? DType::f64 : DType::f32;

  [[noreturn]] static void refuse(const NodeSpec& node, const char* code, const char* why) {
    throw Error(code, (node.layer.empty() ? "" : node.layer + ": ") + "chain " + why);
  }

  static std::array<const Operand*, kMostInputs> operands(const NodeSpec& node) {
    static const Operand one;
    if (node.inputs.empty() || node.inputs.size() > kMostInputs) refuse(node, "ERR_PROGRAM", "has too many inputs");
    std::array<const Operand*, kMostInputs> all;
    all.fill(&one);
    for (size_t k = 0; k < node.inputs.size(); k++) all[k] = &node.inputs[k];
    return all;
  }

  // Nothing in the code is trusted: operators, numbers and the stack's depth are checked here, once.
  void parse(const NodeSpec& node) {
    const std::vector<int64_t> code = node.integers("code");
    const auto need = [&](bool fine) {
      if (!fine) refuse(node, "ERR_PROGRAM", "has code that makes no sense");
    };
    need(code.size() % 2 == 0);
    int depth = 0;
    for (size_t i = 0; i < code.size(); i += 2) {
      const auto place = static_cast<size_t>(code[i]), argument = static_cast<size_t>(code[i + 1]);
      need(place < opTable().size());
      const OpInfo& op = opTable()[place];
      const std::string name = op.name;
      const size_t reads = name == "full" ? 1 : op.attrs.size();
      Step<T> step = {Step<T>::kInput, argument, nullptr, nullptr};
      if (name == "input") {
        need(argument < node.inputs.size());
        depth++;
      } else {
        need(argument <= numbers_.size() && reads <= numbers_.size() - argument);
        step.numbers = numbers_.data() + argument;
        step.kind = name == "full" ? Step<T>::kNumber : op.inputs.size() == 2 ? Step<T>::kBinary : Step<T>::kUnary;
        depth += step.kind == Step<T>::kNumber ? 1 : step.kind == Step<T>::kBinary ? -1 : 0;
        if (name != "full") step.run = stepOf<T>(name, step.numbers);
        need(name == "full" || step.run);
      }
      need(depth >= 1 && depth <= kMostDepth);
      steps_.push_back(step);
    }
    need(depth == 1 && steps_.back().run);
  }

  void block(const Args& args, int64_t at, int64_t n) const {
    alignas(64) T slots[kMostDepth][kBlock];
    const T* stack[kMostDepth] = {};
    T* const y = dtype_ == kOwn ? args.out[0].as<T>() + at : nullptr;
    int top = -1;
    for (const Step<T>& step : steps_) {
      if (step.kind == Step<T>::kInput) {
        const Tensor& x = args.in[step.input];
        top++;
        stack[top] = inputs_[step.input].whole ? x.as<T>() + at : spread(x, step.input, at, n, slots[top]);
        continue;
      }
      if (step.kind == Step<T>::kNumber) {
        top++;
        std::fill_n(slots[top], n, static_cast<T>(*step.numbers));
        roundTo(rounded_, slots[top], n);
        stack[top] = slots[top];
        continue;
      }
      if (step.kind == Step<T>::kBinary) top--;
      T* to = y && &step == &steps_.back() ? y : slots[top];
      step.run(stack[top], stack[std::min(top + 1, kMostDepth - 1)], to, n, step.numbers);
      roundTo(rounded_, to, n);
      stack[top] = to;
    }
    if (dtype_ == DType::bf16) round(stack[0], n, args.out[0].as<BFloat16>() + at);
    if (dtype_ == DType::f16) round(stack[0], n, args.out[0].as<Float16>() + at);
  }

  template <class To>
  static void round(const T* from, int64_t n, To* to) {
    for (int64_t i = 0; i < n; i++) to[i] = To(static_cast<float>(from[i]));
  }

  // Elements [at, at + n) of input k as the result sees them.
  const T* spread(const Tensor& x, size_t k, int64_t at, int64_t n, T* to) const {
    const auto copy = [&](const auto* from) {
      walk_.rows(at, at + n, [&](int64_t place, int64_t length, const std::array<int64_t, kMostInputs>& offset) {
        T* row = to + (place - at);
        if (walk_.steps(k))
          std::copy_n(from + offset[k], length, row);
        else
          std::fill_n(row, length, static_cast<T>(from[offset[k]]));
      });
    };
    if (inputs_[k].dtype == DType::bf16)
      copy(x.as<BFloat16>());
    else if (inputs_[k].dtype == DType::f16)
      copy(x.as<Float16>());
    else
      copy(x.as<T>());
    return to;
  }

  std::vector<double> numbers_;
  Walk<kMostInputs> walk_;
  DType dtype_, rounded_;  // of the result; that of each step where it has 16 bits
  std::vector<Input> inputs_;
  std::vector<Step<T>> steps_;
};

}  // namespace

Bound bindChain(const NodeSpec& node) {
  const auto bind = [&](auto tag) -> Bound {
    const auto chain = std::make_shared<const Chain<decltype(tag)>>(node);
    return {[chain](const Args& args) { chain->run(args); }, 0};
  };
  if (node.outputs[0].dtype == DType::f64) return bind(double{});
  if (node.outputs[0].dtype == DType::i32 || node.outputs[0].dtype == DType::u8)
    return onFloat(node.outputs[0].dtype, node, bind);
  return bind(float{});
}

}  // namespace refl::REFL_ISA
