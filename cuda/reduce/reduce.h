// Sums, largest elements and their places along an axis. Sums are in float32.
#pragma once
#include <cstdint>

#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** The largest element is NaN where one is. */
enum class Reduction { sum, max };

/** x as [outer, count, inner], of which the middle goes; under 2^31 elements, outer and inner not 0. */
struct Middle {
  unsigned outer, count, inner;
};

/** Into how many parts `count` is cut, so that there are blocks enough: what `reduce` leaves is [outer, parts, inner],
 * to be reduced once more where that is more than one. */
unsigned reduceParts(const Middle& shape);

/** y [outer, parts, inner]. From and To: float, bf16 or f16, of which two are float or both the same. */
template <class From, class To>
cudaError_t reduce(Reduction op, const Middle& shape, const From* x, To* y, cudaStream_t stream);

/** y [outer, inner]: the place of the largest element, of the first where several are, or of the first NaN. T: float,
 * bf16 or f16. */
template <class T>
cudaError_t argmax(const Middle& shape, const T* x, int32_t* y, cudaStream_t stream);

}  // namespace refl::cuda
