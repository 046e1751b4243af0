#include "backend/registry.h"

namespace refl::cuda {

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

}  // namespace refl::cuda
