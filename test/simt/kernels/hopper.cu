// The instructions of sm_90a: a product with all of them in their usual places, which faults are planted in, and small
// kernels for the other forms of copies and descriptors.
#include <type_traits>

#include "hopper.h"

namespace {

using namespace simt;
using F = HopperFault;

constexpr int kM = 64, kN = 64, kK = 64, kStages = 3, kThreads = 256;
constexpr int kBytesA = kM * kK * 2, kBytesB = kN * kK * 2;

// A block computes 64 x 64 of C. Warpgroup 0 loads tiles of A and B into a ring of three stages; warpgroup 1 multiplies
// them and stores its result through shared memory. Rows are 128 bytes, swizzled.
template <class T, F kFault>
__global__ void __launch_bounds__(kThreads, 1)
    productKernel(const __grid_constant__ TensorMap mapA, const __grid_constant__ TensorMap mapB,
                  const __grid_constant__ TensorMap mapC, int k) {
  SharedArena arena;
  T* tileA = arena.take<T>(kStages * kM * kK, 1024);
  T* tileB = arena.take<T>(kStages * kN * kK, 1024);
  T* tileC = arena.take<T>(kM * kN, 1024);
  Mbarrier* full = arena.take<Mbarrier>(kStages);
  Mbarrier* empty = arena.take<Mbarrier>(kStages);
  const int m0 = static_cast<int>(blockIdx.y) * kM, n0 = static_cast<int>(blockIdx.x) * kN;
  const int steps = (k + kK - 1) / kK, warp = static_cast<int>(threadIdx.x) / 32;

  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrierInit(full + s, 1);
      mbarrierInit(empty + s, kFault == F::tooFewArrivals ? 3 : 4);
    }
    if (kFault != F::missingInitFence) mbarrierInitFence();
  }
  if (kFault != F::missingInitBarrier) __syncthreads();

  if (warp < 4) {
    if (kFault != F::tooManyRegisters) lowerRegisters<40>();
    if (warp == 0 && electOne()) {
      for (int it = 0; it < steps; ++it) {
        const int s = it % kStages, phase = it / kStages % 2;
        if (kFault != F::missingEmptyWait) mbarrierWait(empty + s, phase ^ 1);
        mbarrierArriveExpect(full + s, kBytesA + kBytesB + (kFault == F::expectTooMany ? 16 : 0) -
                                           (kFault == F::expectTooFew ? kBytesB : 0));
        tmaLoad(tileA + s * kM * kK, &mapA, {it * kK, m0}, full + s);
        tmaLoad(tileB + s * kN * kK, &mapB, {it * kK, n0}, full + s);
      }
    }
  } else {
    raiseRegisters<256>();
    float d[kN / 2];
    for (int it = 0; it < steps; ++it) {
      const int s = it % kStages, phase = it / kStages % 2;
      if (kFault != F::missingFullWait) mbarrierWait(full + s, kFault == F::wrongParity ? phase ^ 1 : phase);
      constexpr Swizzle kSwizzle = kFault == F::wrongSwizzle ? Swizzle::bytes64 : Swizzle::bytes128;
      const uint64_t a = matrixDescriptor(tileA + s * kM * kK, kSwizzle, 16, kFault == F::wrongStride ? 512 : 1024);
      const uint64_t b = matrixDescriptor(tileB + s * kN * kK, Swizzle::bytes128, 16, 1024);
      wgmmaHold(d);
      if (kFault != F::missingWgmmaFence) wgmmaFence();
      for (int j = 0; j < kK / 16; ++j) wgmma<T, kN>(d, advanced(a, 32 * j), advanced(b, 32 * j), it > 0 || j > 0);
      wgmmaCommit();
      if (kFault == F::earlyRelease && threadIdx.x % 32 == 0) mbarrierArrive(empty + s);
      if (kFault == F::accumulatorWritten) d[0] = 0;
      if (kFault != F::missingWgmmaWait && (kFault != F::accumulatorBeforeWait || it + 1 < steps)) wgmmaWait<0>();
      wgmmaHold(d);
      if (kFault != F::earlyRelease && threadIdx.x % 32 == 0) mbarrierArrive(empty + s);
    }
    // Rows of 128 bytes; the 16-byte chunks of row r are permuted as the copy undoes it.
    const int lane = static_cast<int>(threadIdx.x) % 32, row = (warp - 4) * 16 + lane % 16;
    for (int j = 0; j < kN / 16; ++j) {
      uint32_t r[4];
      for (int i = 0; i < 4; ++i) r[i] = pack2<T>(d[8 * j + 2 * i], d[8 * j + 2 * i + 1]);
      const int chunk = (2 * j + lane / 16) ^ (row % 8);
      stmatrix(tileC + row * kN + chunk * 8, r);
    }
    if (kFault == F::accumulatorBeforeWait || kFault == F::missingWgmmaWait) wgmmaWait<0>();
    if (kFault != F::missingProxyFence) fenceProxyAsync();
    if (kFault != F::missingStoreBarrier) barSync(1, 128);
    if (warp == 4 && electOne()) {
      tmaStore(&mapC, {n0, m0}, tileC);
      bulkCommit();
      if (kFault != F::missingStoreWait) bulkWaitRead<0>();
    }
  }
}

template <class T>
TensorView rowsOf(const T* at, int rows, int columns, TensorType type) {
  TensorView view = {};
  view.type = type;
  view.rank = 2;
  view.at = at;
  view.extent[0] = static_cast<uint64_t>(columns);
  view.extent[1] = static_cast<uint64_t>(rows);
  view.stride[0] = static_cast<uint64_t>(columns) * sizeof(T);
  view.box[0] = 64;
  view.box[1] = 64;
  view.step[0] = view.step[1] = 1;
  view.swizzle = Swizzle::bytes128;
  return view;
}

template <class T, F kFault>
cudaError_t launchProduct(const TensorMap& a, const TensorMap& b, const TensorMap& c, int m, int n, int k) {
  const size_t shared = SharedLayout()
                            .take<T>(kStages * kM * kK, 1024)
                            .template take<T>(kStages * kN * kK, 1024)
                            .template take<T>(kM * kN, 1024)
                            .template take<Mbarrier>(kStages)
                            .template take<Mbarrier>(kStages)
                            .bytes();
  return launch<productKernel<T, kFault>>({dim3((n + kN - 1) / kN, (m + kM - 1) / kM), kThreads, shared}, a, b, c, k);
}

// One wgmma on tiles that the threads place themselves, by the formulas of the layouts.
template <class T, int N, bool kTransposed, bool kFragments>
__global__ void __launch_bounds__(128, 1) groupKernel(const T* a, const T* b, float* c, Swizzle swizzle) {
  constexpr int kDepth = 32 / static_cast<int>(sizeof(T));
  const int width = swizzle == Swizzle::none ? 0 : 16 << static_cast<int>(swizzle);
  SharedArena arena;
  char* tileA = arena.take<char>(64 * 128, 1024);
  char* tileB = arena.take<char>(64 * 128, 1024);
  // The byte of row r, byte k of a tile of rows that are `width` bytes apart, or of core matrices of 8 rows of 16
  // bytes.
  const auto byteOf = [&](int r, int k) {
    const int at = width ? r * width + k : r / 8 * 256 + k / 16 * 128 + r % 8 * 16 + k % 16;
    return at ^ (at >> 7 & (width ? width / 16 - 1 : 0)) << 4;
  };
  const int t = static_cast<int>(threadIdx.x), size = static_cast<int>(sizeof(T));
  for (int i = t; i < 64 * kDepth; i += 128)
    *reinterpret_cast<T*>(tileA + byteOf(i / kDepth, i % kDepth * size)) = a[i];
  for (int i = t; i < N * kDepth; i += 128) {
    if constexpr (kTransposed) {
      // Rows of K, `across` elements wide; wider tiles are slabs of 16 such rows.
      const int k = i / N, n = i % N, across = width / 2, at = n / across * 16 * width + k * width + n % across * 2;
      *reinterpret_cast<T*>(tileB + (at ^ (at >> 7 & (width / 16 - 1)) << 4)) = b[i];
    } else {
      *reinterpret_cast<T*>(tileB + byteOf(i / kDepth, i % kDepth * size)) = b[i];
    }
  }
  fenceProxyAsync();
  __syncthreads();
  const int stride = width ? 8 * width : 256, leading = width ? (kTransposed ? 16 * width : 16) : 128;
  const uint64_t from = matrixDescriptor(tileB, swizzle, leading, stride);
  float d[N / 2];
  for (int i = 0; i < N / 2; ++i) d[i] = 1;
  wgmmaHold(d);
  if constexpr (kFragments) {
    const int row = t / 32 * 16 + t % 32 / 4;
    uint32_t r[4];
    for (int i = 0; i < 4; ++i)
      r[i] = *reinterpret_cast<const uint32_t*>(a + (row + 8 * (i % 2)) * kDepth + (t % 4 + 4 * (i / 2)) * 4 / size);
    wgmmaFence();
    wgmma<T, N, kTransposed>(d, r, from, true);
  } else {
    wgmmaFence();
    wgmma<T, N, 0, kTransposed>(d, matrixDescriptor(tileA, swizzle, width ? 16 : 128, stride), from, true);
  }
  wgmmaCommit();
  wgmmaWait<0>();
  wgmmaHold(d);
  for (int i = 0; i < N / 2; ++i)
    c[(t / 32 * 16 + t % 32 / 4 + 8 * (i / 2 % 2)) * N + 8 * (i / 4) + 2 * (t % 4) + i % 2] = d[i];
}

template <int R>
__global__ void boxKernel(const __grid_constant__ TensorMap map, int4 at, int last, float* out, int count) {
  SharedArena arena;
  float* tile = arena.take<float>(count, 128);
  Mbarrier* barrier = arena.take<Mbarrier>(1);
  if (threadIdx.x == 0) {
    mbarrierInit(barrier, 1);
    mbarrierInitFence();
    const int all[5] = {at.x, at.y, at.z, at.w, last};
    int from[R];
    for (int i = 0; i < R; ++i) from[i] = all[i];
    tmaLoad(tile, &map, from, barrier);
    mbarrierArriveExpect(barrier, count * 4);
  }
  __syncthreads();
  mbarrierWait(barrier, 0);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += 32) out[i] = tile[i];
}

template <int R>
cudaError_t launchBox(const TensorMap& map, const int (&at)[5], float* out, int count) {
  const size_t shared = SharedLayout().take<float>(count, 128).take<Mbarrier>(1).bytes();
  return launch<boxKernel<R>>({1, 32, shared}, map, make_int4(at[0], at[1], at[2], at[3]), at[4], out, count);
}

}  // namespace

template <class T>
cudaError_t hopperProduct(HopperFault fault, const T* a, const T* b, T* c, int m, int n, int k) {
  const TensorType type = std::is_same_v<T, bf16> ? TensorType::bf16 : TensorType::f16;
  TensorMap mapA, mapB, mapC;
  if (const cudaError_t error = encodeTensorMap(&mapA, rowsOf(a, m, k, type))) return error;
  if (const cudaError_t error = encodeTensorMap(&mapB, rowsOf(b, n, k, type))) return error;
  if (const cudaError_t error = encodeTensorMap(&mapC, rowsOf(c, m, n, type))) return error;
  switch (fault) {
#define SIMT_PLANTED(name) \
  case F::name:            \
    return launchProduct<T, F::name>(mapA, mapB, mapC, m, n, k);
    SIMT_PLANTED(none)
    SIMT_PLANTED(missingProxyFence)
    SIMT_PLANTED(wrongParity)
    SIMT_PLANTED(expectTooMany)
    SIMT_PLANTED(expectTooFew)
    SIMT_PLANTED(accumulatorBeforeWait)
    SIMT_PLANTED(accumulatorWritten)
    SIMT_PLANTED(wrongStride)
    SIMT_PLANTED(wrongSwizzle)
    SIMT_PLANTED(missingWgmmaFence)
    SIMT_PLANTED(missingFullWait)
    SIMT_PLANTED(missingEmptyWait)
    SIMT_PLANTED(earlyRelease)
    SIMT_PLANTED(missingWgmmaWait)
    SIMT_PLANTED(missingInitFence)
    SIMT_PLANTED(missingInitBarrier)
    SIMT_PLANTED(missingStoreBarrier)
    SIMT_PLANTED(missingStoreWait)
    SIMT_PLANTED(tooManyRegisters)
    SIMT_PLANTED(tooFewArrivals)
#undef SIMT_PLANTED
  }
  return cudaErrorInvalidConfiguration;
}
template cudaError_t hopperProduct(HopperFault, const bf16*, const bf16*, bf16*, int, int, int);

template <class T>
cudaError_t groupProduct(const T* a, const T* b, float* c, int n, bool transposed, bool fragments, Swizzle swizzle) {
  const Launch at = {1, 128, SharedLayout().take<char>(64 * 128, 1024).take<char>(64 * 128, 1024).bytes()};
  if (transposed && fragments) return launch<groupKernel<T, 64, true, true>>(at, a, b, c, swizzle);
  if (transposed) return launch<groupKernel<T, 64, true, false>>(at, a, b, c, swizzle);
  if (n == 32) return launch<groupKernel<T, 32, false, false>>(at, a, b, c, swizzle);
  if (fragments) return launch<groupKernel<T, 64, false, true>>(at, a, b, c, swizzle);
  return launch<groupKernel<T, 64, false, false>>(at, a, b, c, swizzle);
}
template cudaError_t groupProduct(const bf16*, const bf16*, float*, int, bool, bool, Swizzle);
template cudaError_t groupProduct(const f16*, const f16*, float*, int, bool, bool, Swizzle);

cudaError_t groupProductTf32(const tf32* a, const tf32* b, float* c, bool fragments, Swizzle swizzle) {
  const Launch at = {1, 128, SharedLayout().take<char>(64 * 128, 1024).take<char>(64 * 128, 1024).bytes()};
  if (fragments) return launch<groupKernel<tf32, 64, false, true>>(at, a, b, c, swizzle);
  return launch<groupKernel<tf32, 64, false, false>>(at, a, b, c, swizzle);
}

cudaError_t box(const TensorView& view, const int (&at)[5], float* out) {
  TensorMap map;
  if (const cudaError_t error = encodeTensorMap(&map, view)) return error;
  uint32_t count = view.box[0];
  for (int i = 1; i < view.rank; ++i) count *= (view.box[i] + view.step[i] - 1) / view.step[i];
  switch (view.rank) {
    case 1:
      return launchBox<1>(map, at, out, static_cast<int>(count));
    case 2:
      return launchBox<2>(map, at, out, static_cast<int>(count));
    case 3:
      return launchBox<3>(map, at, out, static_cast<int>(count));
    case 4:
      return launchBox<4>(map, at, out, static_cast<int>(count));
    default:
      return launchBox<5>(map, at, out, static_cast<int>(count));
  }
}
