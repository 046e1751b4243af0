// The CPU backend's table: the binder of every operator that has a kernel, for the instruction set this file is
// compiled for.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "cpu/support.h"
#include "exec/half.h"

namespace refl::REFL_ISA {
namespace {

// Whether kernels of an operator take 16-bit floats as they are: to move, fill or convert them.
bool takesHalves(const OpInfo& op) {
  const std::string name = op.name;
  if (name == "cast" || name == "full" || name == "chain") return true;
  return std::string(op.family) == "layout" && name != "padGrad";
}

// Whether an operator overwrites input number `input`.
bool writesTo(const OpInfo& op, size_t input) {
  if (input < op.inputs.size() || op.group.empty()) return false;
  const std::string member = op.group[(input - op.inputs.size()) % op.group.size()];
  return std::find(op.writes.begin(), op.writes.end(), member) != op.writes.end();
}

// The float32 copies of a node's operands of 16 bits: where each begins in scratch memory.
class Copies {
 public:
  // Makes those operands float32. They have no buffer then, of which a kernel would keep a packed copy.
  Copies(std::vector<Operand>& operands, size_t& bytes) : count_(operands.size()) {
    for (size_t i = 0; i < operands.size(); i++) {
      Operand& t = operands[i];
      if (!isHalf(t.dtype)) continue;
      copies_.push_back({i, bytes});
      t.dtype = DType::f32;
      t.buffer = nullptr;
      t.frozen = false;
      const size_t line = 64;
      bytes += (static_cast<size_t>(t.size()) * sizeof(float) + line - 1) / line * line;
    }
  }

  // The operands with the copies in their places.
  std::vector<Tensor> of(const Tensor* operands, std::byte* scratch) const {
    std::vector<Tensor> wide(operands, operands + count_);
    for (const Copy& copy : copies_) {
      Tensor& t = wide[copy.operand];
      if (t) t.data = scratch + copy.offset;
      t.dtype = DType::f32;
    }
    return wide;
  }

  // Calls fn(of 16 bits, float32) with each operand that is there and its copy.
  template <class Fn>
  void each(const Tensor* operands, const std::vector<Tensor>& wide, const Fn& fn) const {
    for (const Copy& copy : copies_) {
      if (operands[copy.operand]) fn(operands[copy.operand], wide[copy.operand]);
    }
  }

 private:
  struct Copy {
    size_t operand, offset;
  };
  size_t count_;
  std::vector<Copy> copies_;
};

template <class To, class From>
void convert(const From* from, To* to, int64_t count) {
  parallelFor(count, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) to[i] = To(static_cast<float>(from[i]));
  });
}

void widen(const Tensor& narrow, const Tensor& wide) {
  if (narrow.dtype == DType::bf16)
    convert(narrow.as<BFloat16>(), wide.as<float>(), narrow.size());
  else
    convert(narrow.as<Float16>(), wide.as<float>(), narrow.size());
}

void round(const Tensor& narrow, const Tensor& wide) {
  if (narrow.dtype == DType::bf16)
    convert(wide.as<float>(), narrow.as<BFloat16>(), narrow.size());
  else
    convert(wide.as<float>(), narrow.as<Float16>(), narrow.size());
}

// A node with operands of 16 bits: its float32 kernel, on copies of them in scratch memory, whose results are rounded.
// That moves 6 bytes more for each of their elements, and packs weights at every run: it is for the numbers of networks
// in 16 bits where no GPU is, and not for speed.
Bound bindWidened(const NodeSpec& node, Bind bind) {
  NodeSpec spec = node;
  for (size_t i = 0; i < node.inputs.size(); i++) {
    const Operand& t = node.inputs[i];
    if (!isHalf(t.dtype)) continue;
    spec.rounded = t.dtype;
    if (!writesTo(*node.op, i)) continue;
    throw Error("ERR_DTYPE", (node.layer.empty() ? "" : node.layer + ": ") + node.op->name + " cannot update " +
                                 describe(t.dtype, t.shape) + " on the CPU: keep it in f32");
  }
  size_t bytes = 0;
  const Copies inputs(spec.inputs, bytes), outputs(spec.outputs, bytes);
  Bound bound = bind(spec);
  const auto run = [inputs, outputs, bytes, kernel = std::move(bound.run)](const Args& args) {
    const std::vector<Tensor> in = inputs.of(args.in, args.scratch), out = outputs.of(args.out, args.scratch);
    inputs.each(args.in, in, widen);
    kernel({in.data(), out.data(), args.scratch + bytes});
    outputs.each(args.out, out, round);
  };
  return {run, bytes + bound.scratch, std::move(bound.packed), std::move(bound.prepare)};
}

template <Bind bind>
Bound bindAny(const NodeSpec& node) {
  const auto isNarrow = [](const Operand& t) { return isHalf(t.dtype); };
  const bool narrow = std::any_of(node.inputs.begin(), node.inputs.end(), isNarrow) ||
                      std::any_of(node.outputs.begin(), node.outputs.end(), isNarrow);
  return narrow && !takesHalves(*node.op) ? bindWidened(node, bind) : bind(node);
}

}  // namespace

#define REFL_KERNEL(name, bind) Bound bind(const NodeSpec&);
#include "op_kernels.inc"
#undef REFL_KERNEL

const std::map<std::string, Bind>& kernels() {
  static const std::map<std::string, Bind> table = {
#define REFL_KERNEL(name, bind) {#name, bindAny<bind>},
#include "op_kernels.inc"
#undef REFL_KERNEL
  };
  return table;
}

}  // namespace refl::REFL_ISA
