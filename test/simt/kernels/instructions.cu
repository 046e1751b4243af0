// Small kernels, one for each wrapper, whose results are known exactly.
#include "instructions.h"

namespace {

using namespace simt;

__global__ void shufflesKernel(const int* in, int* out) {
  const int i = threadIdx.x, v = in[i];
  int* row = out + i * 8;
  row[0] = __shfl_sync(kFullWarp, v, 3);
  row[1] = __shfl_up_sync(kFullWarp, v, 2);
  row[2] = __shfl_down_sync(kFullWarp, v, 5, 16);
  row[3] = __shfl_xor_sync(kFullWarp, v, 9);
  row[4] = static_cast<int>(__ballot_sync(kFullWarp, v & 1));
  row[5] = warpSum(v);
  row[6] = static_cast<int>(__reduce_add_sync(kFullWarp, static_cast<unsigned>(v)));
  // Halves of a warp that meet by themselves.
  const unsigned half = i % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  row[7] = i % 32 < 16 ? __shfl_sync(half, v, 0, 16) : __shfl_sync(half, v * 2, 1, 16);
}

__global__ void transposeKernel(const float* in, float* out) {
  SIMT_SHARED(float, tile, [32][33]);
  for (int y = threadIdx.y; y < 32; y += blockDim.y)
    tile[y][threadIdx.x] = in[(blockIdx.y * 32 + y) * gridDim.x * 32 + blockIdx.x * 32 + threadIdx.x];
  __syncthreads();
  for (int y = threadIdx.y; y < 32; y += blockDim.y)
    out[(blockIdx.x * 32 + y) * gridDim.y * 32 + blockIdx.y * 32 + threadIdx.x] = tile[threadIdx.x][y];
}

// Each of two warps hands its sum to the other; a third only arrives.
__global__ void namedKernel(const int* in, int* out) {
  SIMT_SHARED(int, sums, [2]);
  const int warp = threadIdx.x / 32;
  if (warp == 2) {
    barArrive(5, 96);
    return;
  }
  const int sum = warpSum(in[threadIdx.x]);
  if (threadIdx.x % 32 == 0) sums[warp] = sum;
  barSync(5, 96);
  out[threadIdx.x] = sums[1 - warp];
}

__global__ void atomicsKernel(int* sum, float* total, unsigned* turns) {
  atomicAdd(sum, static_cast<int>(threadIdx.x));
  atomicAdd(total, 0.5f);
  atomicMax(sum + 1, static_cast<int>(threadIdx.x * 7 % 64));
  atomicInc(turns, 9);
}

template <class T>
__global__ void convertKernel(const float* in, T* out, float* back, int count) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 2;
  if (i >= count) return;
  const uint32_t both = pack2<T>(in[i], in[i + 1]);
  const float2 wide = unpack2<T>(both);
  out[i] = fromFloat<T>(in[i]);
  out[i + 1] = T{static_cast<uint16_t>(both >> 16)};
  store<2>(back + i, Pack<float, 2>{{wide.x, wide.y}});
}

// C = A B of [M, K] [K, N]: a warp a 16 x 8 N/8 tile; A by ldmatrix, B by its transposing form, K in two stages of
// cp.async.
template <class T>
__global__ void productKernel(const T* a, const T* b, float* c, int depth) {
  constexpr int kN = 32, kK = 16;
  SharedArena arena;
  T* tileA = arena.take<T>(2 * 16 * kK);
  T* tileB = arena.take<T>(2 * kK * kN);
  const int lane = threadIdx.x;
  const auto fetch = [&](int k, int stage) {
    cpAsync<16>(tileA + stage * 16 * kK + lane * 8, a + (lane / 2) * depth + k + lane % 2 * 8);
    for (int i = lane; i < kK * kN / 8; i += 32)
      cpAsync<16>(tileB + stage * kK * kN + i * 8, b + (k + i * 8 / kN) * kN + i * 8 % kN);
    cpAsyncCommit();
  };
  float d[1][4][4] = {};
  fetch(0, 0);
  for (int k = 0; k < depth; k += kK) {
    const int stage = k / kK % 2;
    if (k + kK < depth)
      fetch(k + kK, 1 - stage);
    else
      cpAsyncCommit();
    cpAsyncWait<1>();
    __syncwarp();
    uint32_t fa[1][4], fb[4][2];
    ldmatrix(fa[0], tileA + stage * 16 * kK + lane % 16 * kK + lane / 16 * 8);
    for (int n = 0; n < 4; ++n) ldmatrix<true>(fb[n], tileB + stage * kK * kN + lane % 16 * kN + n * 8);
    mmaTiles<T>(d, fa, fb);
    __syncwarp();
  }
  for (int n = 0; n < 4; ++n)
    for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * kN + n * 8 + lane % 4 * 2 + i % 2] = d[0][n][i];
}

__global__ void productTf32Kernel(const float* a, const float* b, float* c) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  uint32_t fa[4], fb[2];
  float d[4] = {1, 1, 1, 1};
  for (int i = 0; i < 4; ++i) fa[i] = toTf32(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) fb[i] = toTf32(b[(t + 4 * i) * 8 + g]);
  mma<tf32>(d, fa, fb);
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

// Copies of 4, 8 and 16 bytes of which `valid` are.
__global__ void fillKernel(const char* in, char* out, int valid) {
  SharedArena arena;
  char* tile = arena.take<char>(48);
  if (threadIdx.x == 0) {
    cpAsync<4>(tile, in, min(valid, 4));
    cpAsync<8>(tile + 16, in + 16, min(valid, 8));
    cpAsync<16>(tile + 32, in + 32, valid);
    cpAsyncCommit();
    cpAsyncWait<0>();
    for (int i = 0; i < 4; ++i) out[i] = tile[i];
    for (int i = 16; i < 24; ++i) out[i - 12] = tile[i];
    for (int i = 32; i < 48; ++i) out[i - 20] = tile[i];
  }
}

}  // namespace

cudaError_t shuffles(const int* in, int* out, int threads) {
  return launch<shufflesKernel>({1, unsigned(threads)}, in, out);
}
cudaError_t transpose(const float* in, float* out, int rows, int columns) {
  return launch<transposeKernel>({dim3(columns / 32, rows / 32), dim3(32, 8)}, in, out);
}
cudaError_t named(const int* in, int* out) { return launch<namedKernel>({1, 96}, in, out); }
cudaError_t atomics(int* sum, float* total, unsigned* turns) {
  return launch<atomicsKernel>({7, 64}, sum, total, turns);
}
template <class T>
cudaError_t convert(const float* in, T* out, float* back, int count) {
  return launch<convertKernel<T>>({unsigned(count + 255) / 256, 128}, in, out, back, count);
}
template cudaError_t convert(const float*, bf16*, float*, int);
template cudaError_t convert(const float*, f16*, float*, int);
template <class T>
cudaError_t product(const T* a, const T* b, float* c, int depth) {
  const size_t bytes = SharedLayout().take<T>(2 * 16 * 16).template take<T>(2 * 16 * 32).bytes();
  return launch<productKernel<T>>({1, 32, bytes}, a, b, c, depth);
}
template cudaError_t product(const bf16*, const bf16*, float*, int);
template cudaError_t product(const f16*, const f16*, float*, int);
cudaError_t productTf32(const float* a, const float* b, float* c) {
  return launch<productTf32Kernel>({1, 32}, a, b, c);
}
cudaError_t fill(const char* in, char* out, int valid) { return launch<fillKernel>({1, 32, 48}, in, out, valid); }
