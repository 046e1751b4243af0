// Exponentials, logarithms, powers and the functions of angles: 10 to 100 operations an element, by CUDA's own float32
// functions for every type, which are good to a few units in the last place. The kernels and their bytes are map.h's.
#include "elementwise/map.h"

namespace refl::cuda {

#define REFL_APPLY(...) __device__ __forceinline__ float apply(__VA_ARGS__)

REFL_APPLY(const Exp&, float x) { return expf(x); }
REFL_APPLY(const Log&, float x) { return logf(x); }
REFL_APPLY(const Sin&, float x) { return sinf(x); }
REFL_APPLY(const Cos&, float x) { return cosf(x); }
REFL_APPLY(const Tanh&, float x) { return tanhf(x); }
REFL_APPLY(const Sigmoid&, float x) { return 1.0f / (1.0f + expf(-x)); }
REFL_APPLY(const Power& op, float x) { return powf(x, op.exponent); }

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
