// The CPU backend's table: the binder of every operator that has a kernel, for the instruction set this file is
// compiled for.
#include <map>
#include <string>

#include "exec/kernel.h"
#include "exec/status.h"

namespace refl::REFL_ISA {
namespace {

// Binds a node, unless 16-bit floats stand among its operands and it does more than move, fill or convert (a chain
// converts as it reads and writes): kernels look at the dtype of one operand.
template <Bind bind>
Bound bindWide(const NodeSpec& node) {
  const std::string op = node.op->name;
  const bool moves =
      op == "cast" || op == "full" || op == "chain" || (std::string(node.op->family) == "layout" && op != "padGrad");
  for (const auto* operands : {&node.inputs, &node.outputs}) {
    for (const Operand& t : *operands) {
      if (moves || (t.dtype != DType::bf16 && t.dtype != DType::f16)) continue;
      throw Error("ERR_DTYPE", (node.layer.empty() ? "" : node.layer + ": ") + op + " got " +
                                   describe(t.dtype, t.shape) +
                                   ", but the CPU computes in f32: cast to that, or use a " + "CUDA device");
    }
  }
  return bind(node);
}

}  // namespace

#define REFL_KERNEL(name, bind) Bound bind(const NodeSpec&);
#include "op_kernels.inc"
#undef REFL_KERNEL

const std::map<std::string, Bind>& kernels() {
  static const std::map<std::string, Bind> table = {
#define REFL_KERNEL(name, bind) {#name, bindWide<bind>},
#include "op_kernels.inc"
#undef REFL_KERNEL
  };
  return table;
}

}  // namespace refl::REFL_ISA
