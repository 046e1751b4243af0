// The CPU backend's table: the binder of every operator that has a kernel, for the instruction set this file is
// compiled for.
#include <map>
#include <string>

#include "exec/kernel.h"

namespace refl::REFL_ISA {

#define REFL_KERNEL(name, bind) Bound bind(const NodeSpec&);
#include "op_kernels.inc"
#undef REFL_KERNEL

const std::map<std::string, Bind>& kernels() {
  static const std::map<std::string, Bind> table = {
#define REFL_KERNEL(name, bind) {#name, bind},
#include "op_kernels.inc"
#undef REFL_KERNEL
  };
  return table;
}

}  // namespace refl::REFL_ISA
