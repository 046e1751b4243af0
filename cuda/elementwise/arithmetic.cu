// Arithmetic, comparisons and choice, with broadcasting. One to three operations an element beside the conversions; the
// kernels and their bytes are map.h's.
#include "elementwise/map.h"

namespace refl::cuda {

#define REFL_APPLY(Op, ...) __device__ __forceinline__ float apply(const Op&, __VA_ARGS__)

REFL_APPLY(Add, float a, float b) { return a + b; }
REFL_APPLY(Sub, float a, float b) { return a - b; }
REFL_APPLY(Mul, float a, float b) { return a * b; }
REFL_APPLY(Div, float a, float b) { return a / b; }
// NaN wins on either side; of equal values, zeros of two signs among them, the first.
REFL_APPLY(Maximum, float a, float b) { return a >= b || a != a ? a : b; }
REFL_APPLY(Minimum, float a, float b) { return a <= b || a != a ? a : b; }
REFL_APPLY(Greater, float a, float b) { return a > b ? 1.0f : 0.0f; }
REFL_APPLY(GreaterEqual, float a, float b) { return a >= b ? 1.0f : 0.0f; }
REFL_APPLY(Equal, float a, float b) { return a == b ? 1.0f : 0.0f; }
// NaN counts as true.
REFL_APPLY(Where, float condition, float a, float b) { return condition != 0 ? a : b; }

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
