// Kernels with a fault planted in each, one for every class that the emulator must report. `kWrong` plants it; without
// it the same kernel is right, so that a report is the fault's and not the kernel's. Blocks of 128 threads, two of
// them.
#include "faults.h"

namespace {

using namespace simt;

constexpr int kThreads = 128, kAll = 256;

__device__ __forceinline__ int index() { return static_cast<int>(blockIdx.x * kThreads + threadIdx.x); }

template <bool kWrong>
__global__ void missingBarrier(const float* in, float* out) {
  SIMT_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x] = in[index()];
  if (!kWrong) __syncthreads();
  out[index()] = tile[threadIdx.x ^ 1];
}

template <bool kWrong>
__global__ void misplacedBarrier(const float* in, float* out) {
  SIMT_SHARED(float, tile, [kThreads]);
  if (kWrong) __syncthreads();
  tile[threadIdx.x] = in[index()];
  if (!kWrong) __syncthreads();
  out[index()] = tile[kThreads - 1 - threadIdx.x];
}

// The barrier that keeps the next turn's writes from overtaking this turn's reads.
template <bool kWrong>
__global__ void missingTrailingBarrier(const float* in, float* out) {
  SIMT_SHARED(float, tile, [kThreads]);
  float sum = 0;
  for (int turn = 0; turn < 4; ++turn) {
    tile[threadIdx.x] = in[index()] + static_cast<float>(turn);
    __syncthreads();
    sum += tile[(threadIdx.x + 32) % kThreads];
    if (!kWrong) __syncthreads();
  }
  out[index()] = sum;
}

// A shuffle is no barrier: it orders nothing in memory.
template <bool kWrong>
__global__ void missingSyncwarp(const float* in, float* out) {
  SIMT_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x] = in[index()];
  if (kWrong)
    __shfl_sync(kFullWarp, 0, 0);
  else
    __syncwarp();
  out[index()] = tile[threadIdx.x ^ 1];
}

template <bool kWrong>
__global__ void globalRead(const float* in, float* out) {
  out[index()] = in[kWrong ? index() + 1 : index()];
}

template <bool kWrong>
__global__ void globalWrite(const float* in, float* out) {
  out[index()] = in[index()];
  if (kWrong && index() == 0) out[kAll] = 1;
}

template <bool kWrong>
__global__ void staticShared(const float* in, float* out) {
  SIMT_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x + (kWrong ? 1 : 0)] = in[index()];
  out[index()] = in[index()];
}

template <bool kWrong>
__global__ void staticSharedRead(const float* in, float* out) {
  SIMT_SHARED(float, tile, [kThreads]);
  tile[threadIdx.x] = in[index()];
  __syncthreads();
  const float next = tile[(threadIdx.x + 1) % (kWrong ? kAll : kThreads)];
  out[index()] = in[index()] + 0 * next;
}

template <bool kWrong>
__global__ void dynamicShared(const float* in, float* out) {
  SharedArena arena;
  float* tile = arena.take<float>(kThreads);
  tile[threadIdx.x] = in[index()];
  if (kWrong && threadIdx.x == 0) tile[kThreads] = 1;
  out[index()] = tile[threadIdx.x];
}

// On a chip the overflow of the first piece lands in the second and nothing shows.
template <bool kWrong>
__global__ void pieceIntoNext(const float* in, float* out) {
  SharedArena arena;
  float* first = arena.take<float>(kThreads / 2);
  float* second = arena.take<float>(kThreads / 2);
  float* mine = threadIdx.x < kThreads / 2 || kWrong ? first + threadIdx.x : second + (threadIdx.x - kThreads / 2);
  *mine = in[index()];
  out[index()] = *mine;
}

template <bool kWrong>
__global__ void uninitialisedShared(const float* in, float* out) {
  SIMT_SHARED(float, tile, [kThreads]);
  if (!kWrong || threadIdx.x != 5) tile[threadIdx.x] = in[index()];
  __syncthreads();
  out[index()] = tile[threadIdx.x];
}

template <bool kWrong>
__global__ void shortWait(const float* in, float* out) {
  SharedArena arena;
  float* tile = arena.take<float>(kThreads);
  cpAsync<4>(tile + threadIdx.x, in + index());
  cpAsyncCommit();
  cpAsyncWait<kWrong ? 1 : 0>();
  out[index()] = tile[threadIdx.x];
}

template <bool kWrong>
__global__ void copyWithoutBarrier(const float* in, float* out) {
  SharedArena arena;
  float* tile = arena.take<float>(kThreads);
  cpAsync<4>(tile + threadIdx.x, in + index());
  cpAsyncCommit();
  cpAsyncWait<0>();
  if (!kWrong) __syncthreads();
  out[index()] = tile[threadIdx.x ^ 1];
}

// The tile is fetched anew while its neighbours may still read it.
template <bool kWrong>
__global__ void copySourceOverwritten(const float* in, float* out) {
  SharedArena arena;
  float* tile = arena.take<float>(kThreads);
  float sum = 0;
  for (int turn = 0; turn < 2; ++turn) {
    cpAsync<4>(tile + threadIdx.x, in + index());
    cpAsyncCommit();
    cpAsyncWait<0>();
    __syncthreads();
    sum += tile[threadIdx.x ^ 33];
    if (!kWrong) __syncthreads();
  }
  out[index()] = sum;
}

template <bool kWrong>
__global__ void misalignedPack(const float* in, float* out) {
  const Pack<float, 2> pair = load<2>(in + (index() & (kWrong ? ~0 : ~1)) % (kAll - 2));
  out[index()] = in[index()] + 0 * pair[0];
}

template <bool kWrong>
__global__ void misalignedCast(const float* in, float* out) {
  const float2 pair = *reinterpret_cast<const float2*>(in + (index() & (kWrong ? ~0 : ~1)) % (kAll - 2));
  out[index()] = in[index()] + 0 * pair.x;
}

template <bool kWrong>
__global__ void divergentBarrier(const float* in, float* out) {
  if (!kWrong || threadIdx.x < 64) __syncthreads();
  out[index()] = in[index()];
  if (kWrong && threadIdx.x >= 64) barSync(3, 128);
}

template <bool kWrong>
__global__ void exitBeforeBarrier(const float* in, float* out) {
  out[index()] = in[index()];
  if (kWrong && threadIdx.x >= 100) return;
  __syncthreads();
}

template <bool kWrong>
__global__ void namedCount(const float* in, float* out) {
  out[index()] = in[index()];
  barSync(1, kWrong && threadIdx.x >= 64 ? 96 : 128);
}

template <bool kWrong>
__global__ void namedMissing(const float* in, float* out) {
  out[index()] = in[index()];
  if (threadIdx.x < 64) barSync(1, kWrong ? 96 : 64);
}

template <bool kWrong>
__global__ void divergentShuffle(const float* in, float* out) {
  float v = in[index()];
  if (!kWrong || threadIdx.x % 2)
    v = __shfl_xor_sync(kFullWarp, v, 0);
  else
    v = __shfl_down_sync(kFullWarp, v, 0);
  out[index()] = v;
}

// Half of a warp leaves before its sum.
template <bool kWrong>
__global__ void partialWarp(const float* in, float* out) {
  out[index()] = in[index()];
  if (kWrong && threadIdx.x % 32 >= 16) return;
  const float sum = warpSum(in[index()]);
  if (sum < -1e30f) out[index()] = sum;
}

template <bool kWrong>
__global__ void outsideOutput(const float* in, float* out) {
  out[index()] = in[index()];
  if (kWrong && index() == 0) out[-1] = 0;
}

template <bool kWrong>
__global__ void missingElement(const float* in, float* out) {
  if (!kWrong || index() != 77) out[index()] = in[index()];
}

// Two blocks write one element.
template <bool kWrong>
__global__ void betweenBlocks(const float* in, float* out) {
  out[kWrong && threadIdx.x == 0 ? 0 : index()] = in[kWrong && threadIdx.x == 0 ? 0 : index()];
  if (kWrong && threadIdx.x == 0 && blockIdx.x == 1) out[kThreads] = in[kThreads];
}

// The block that comes last reads what the other wrote; the fence before its count publishes that, the one after learns
// it.
template <bool kWrong>
__global__ void missingFence(const float* in, float* out, unsigned* counter) {
  SIMT_SHARED(unsigned, place);
  if (threadIdx.x) out[index()] = in[index()];
  __syncthreads();
  if (threadIdx.x == 0) {
    if (!kWrong) __threadfence();
    place = atomicAdd(counter, 1u);
    __threadfence();
  }
  __syncthreads();
  if (place == 1 && threadIdx.x < 2) {
    const float other = out[threadIdx.x * kThreads + 1];
    out[threadIdx.x * kThreads] = in[threadIdx.x * kThreads] + 0 * other;
  }
}

template <bool kWrong>
__global__ void sharedTooSmall(const float* in, float* out) {
  SharedArena arena;
  float* tile = arena.take<float>(kWrong ? 2 * kThreads : kThreads);
  tile[threadIdx.x] = in[index()];
  out[index()] = tile[threadIdx.x];
}

template <bool kWrong>
cudaError_t launchOne(Fault fault, const float* in, float* out, unsigned* counter) {
  const Launch plain = {2, kThreads}, dynamic = {2, kThreads, kThreads * sizeof(float)};
  switch (fault) {
#define SIMT_PLANTED(name, at) \
  case Fault::name:            \
    return launch<name<kWrong>>(at, in, out);
    SIMT_PLANTED(missingBarrier, plain)
    SIMT_PLANTED(misplacedBarrier, plain)
    SIMT_PLANTED(missingTrailingBarrier, plain)
    SIMT_PLANTED(missingSyncwarp, plain)
    SIMT_PLANTED(globalRead, plain)
    SIMT_PLANTED(globalWrite, plain)
    SIMT_PLANTED(staticShared, plain)
    SIMT_PLANTED(staticSharedRead, plain)
    SIMT_PLANTED(dynamicShared, dynamic)
    SIMT_PLANTED(pieceIntoNext, dynamic)
    SIMT_PLANTED(uninitialisedShared, plain)
    SIMT_PLANTED(shortWait, dynamic)
    SIMT_PLANTED(copyWithoutBarrier, dynamic)
    SIMT_PLANTED(copySourceOverwritten, dynamic)
    SIMT_PLANTED(misalignedPack, plain)
    SIMT_PLANTED(misalignedCast, plain)
    SIMT_PLANTED(divergentBarrier, plain)
    SIMT_PLANTED(exitBeforeBarrier, plain)
    SIMT_PLANTED(namedCount, plain)
    SIMT_PLANTED(namedMissing, plain)
    SIMT_PLANTED(divergentShuffle, plain)
    SIMT_PLANTED(partialWarp, plain)
    SIMT_PLANTED(outsideOutput, plain)
    SIMT_PLANTED(missingElement, plain)
    SIMT_PLANTED(betweenBlocks, plain)
    SIMT_PLANTED(sharedTooSmall, dynamic)
#undef SIMT_PLANTED
    case Fault::missingFence:
      return launch<missingFence<kWrong>>(plain, in, out, counter);
  }
  return cudaErrorInvalidConfiguration;
}

}  // namespace

cudaError_t planted(Fault fault, bool wrong, const float* in, float* out, unsigned* counter) {
  return wrong ? launchOne<true>(fault, in, out, counter) : launchOne<false>(fault, in, out, counter);
}
