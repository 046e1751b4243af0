// Arithmetic, comparisons and choice, with broadcasting. One to three operations an element beside the conversions; the
// kernels and their bytes are map.h's.
#include "elementwise/apply.h"
#include "elementwise/map.h"

namespace refl::cuda {

#define REFL_BROADCAST(Op, T)                                                                                  \
  template cudaError_t mapBroadcast(const Op&, const Layout<Op::kInputs>&, const T* const(&)[Op::kInputs], T*, \
                                    cudaStream_t);
#define REFL_EACH_TYPE(Op)       \
  REFL_BROADCAST(Op, float)      \
  REFL_BROADCAST(Op, simt::bf16) \
  REFL_BROADCAST(Op, simt::f16)
REFL_EACH_TYPE(Add)
REFL_EACH_TYPE(Sub)
REFL_EACH_TYPE(Mul)
REFL_EACH_TYPE(Div)
REFL_EACH_TYPE(Maximum)
REFL_EACH_TYPE(Minimum)
REFL_EACH_TYPE(Greater)
REFL_EACH_TYPE(GreaterEqual)
REFL_EACH_TYPE(Equal)
REFL_EACH_TYPE(Where)

}  // namespace refl::cuda
