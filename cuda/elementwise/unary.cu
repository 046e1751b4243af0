// Operators of one operand with few operations an element, and the gradients of clamp and leakyRelu. The kernels and
// their bytes are map.h's.
#include "elementwise/apply.h"
#include "elementwise/map.h"

namespace refl::cuda {

#define REFL_MAP(Op, T) template cudaError_t map(const Op&, const Inputs<T, Op::kInputs>&, T*, unsigned, cudaStream_t);
#define REFL_EACH_TYPE(Op) REFL_MAP(Op, float) REFL_MAP(Op, simt::bf16) REFL_MAP(Op, simt::f16)
REFL_EACH_TYPE(Neg)
REFL_EACH_TYPE(Sqrt)
REFL_EACH_TYPE(Rsqrt)
REFL_EACH_TYPE(Reciprocal)
REFL_EACH_TYPE(Square)
REFL_EACH_TYPE(Abs)
REFL_EACH_TYPE(Sign)
REFL_EACH_TYPE(Affine)
REFL_EACH_TYPE(Clamp)
REFL_EACH_TYPE(ClampGrad)
REFL_EACH_TYPE(Relu)
REFL_EACH_TYPE(LeakyRelu)
REFL_EACH_TYPE(LeakyReluGrad)

}  // namespace refl::cuda
