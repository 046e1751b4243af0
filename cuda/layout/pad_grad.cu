// The adjoint of pad. A thread has one element of dx and gathers: along a mirrored axis up to three places of dy came
// from it, along a replicated one a run of places from each end. Each element of dy is read once, each of dx written
// once; sums in float32, outer axes slowest, along each axis upwards.
#include "layout/layout.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;

/** The places along an axis of dy that came from index j: `count` of them. */
struct Places {
  int count, first;
  bool mirrored;  // the first is a mirror image
  int last;       // the last of three, or the only image after

  __device__ __forceinline__ Places(PadMode mode, const PadAxis& axis, int j) {
    const int end = axis.extent - 1;
    first = axis.before + j;
    last = first;
    count = 1;
    mirrored = false;
    if (mode == PadMode::reflect) {
      mirrored = j > 0 && j <= axis.before;
      if (mirrored) first = axis.before - j;
      const bool after = j < end && j >= end - axis.after;
      if (after) last = axis.before + 2 * end - j;
      count = 1 + mirrored + after;
    } else if (mode == PadMode::replicate) {
      if (j == 0) first = 0;
      if (j == end) last = axis.before + end + axis.after;
      count = last - first + 1;
    }
  }
  __device__ __forceinline__ int at(PadMode mode, const PadAxis& axis, int j, int which) const {
    if (mode != PadMode::reflect) return first + which;
    return which < mirrored ? first : which == mirrored ? axis.before + j : last;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    padGradKernel(const __grid_constant__ PadShape shape, const T* __restrict__ dy, T* __restrict__ dx,
                  unsigned count) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) {
    unsigned rest = i;
    int sources = 1;
#pragma unroll 1
    for (int k = 0; k < shape.axes; ++k) {
      const unsigned extent = static_cast<unsigned>(shape.axis[k].extent), next = rest / extent;
      sources *= Places(shape.mode, shape.axis[k], static_cast<int>(rest - next * extent)).count;
      rest = next;
    }
    float sum = 0.0f;
    for (int source = 0; source < sources; ++source) {
      int pick = source;
      unsigned offset = 0;
      rest = i;
#pragma unroll 1
      for (int k = 0; k < shape.axes; ++k) {
        const PadAxis& axis = shape.axis[k];
        const unsigned extent = static_cast<unsigned>(axis.extent), next = rest / extent;
        const int j = static_cast<int>(rest - next * extent);
        const Places places(shape.mode, axis, j);
        offset += static_cast<unsigned>(places.at(shape.mode, axis, j, pick % places.count)) * axis.stride;
        pick /= places.count;
        rest = next;
      }
      sum += toFloat(dy[offset]);
    }
    dx[i] = fromFloat<T>(sum);
  }
}

}  // namespace

template <class T>
cudaError_t padGrad(const PadShape& shape, const T* dy, T* dx, unsigned count, cudaStream_t stream) {
  return launch<padGradKernel<T>>({(count + kThreads - 1) / kThreads, kThreads, 0, stream}, shape, dy, dx, count);
}

template cudaError_t padGrad(const PadShape&, const float*, float*, unsigned, cudaStream_t);
template cudaError_t padGrad(const PadShape&, const bf16*, bf16*, unsigned, cudaStream_t);
template cudaError_t padGrad(const PadShape&, const f16*, f16*, unsigned, cudaStream_t);

}  // namespace refl::cuda
