// Rows of a table looked up by their indices, and the adjoint.
#pragma once
#include <cstdint>

#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** y[i] = table[indices[i]], rows of `width` elements of T (float, bf16 or f16). An index outside of the table gives a
 * row of NaN. The table has rows * width < 2^31 elements, y count * width. */
template <class T>
cudaError_t embedding(const T* table, unsigned rows, unsigned width, const int32_t* indices, unsigned count, T* y,
                      cudaStream_t stream);

/** dtable[r] = the sum, in float32, of dy[i] over the i with indices[i] = r, upwards. */
template <class T>
cudaError_t embeddingGrad(const int32_t* indices, unsigned count, const T* dy, T* dtable, unsigned rows, unsigned width,
                          cudaStream_t stream);

}  // namespace refl::cuda
