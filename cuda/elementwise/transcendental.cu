// Exponentials, logarithms, powers and the functions of angles: 10 to 100 operations an element, by CUDA's own float32
// functions for every type, which are good to a few units in the last place. The kernels and their bytes are map.h's.
#include "elementwise/apply.h"
#include "elementwise/map.h"

namespace refl::cuda {

#define REFL_MAP(Op, T) template cudaError_t map(const Op&, const Inputs<T, Op::kInputs>&, T*, unsigned, cudaStream_t);
#define REFL_EACH_TYPE(Op) REFL_MAP(Op, float) REFL_MAP(Op, simt::bf16) REFL_MAP(Op, simt::f16)
REFL_EACH_TYPE(Exp)
REFL_EACH_TYPE(Log)
REFL_EACH_TYPE(Sin)
REFL_EACH_TYPE(Cos)
REFL_EACH_TYPE(Tanh)
REFL_EACH_TYPE(Sigmoid)
REFL_EACH_TYPE(Power)

}  // namespace refl::cuda
