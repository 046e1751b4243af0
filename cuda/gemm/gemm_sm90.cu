// Products of bf16 and f16 on Hopper's tensor cores, all four layouts.
//
// A block of three warpgroups makes 128 x N of c, N being 256 or 128. One thread of the first warpgroup fetches tiles
// of a (128 x 64) and b (N x 64) by TMA into a ring of stages in shared memory; mbarriers say when a stage is full and
// when both others have done with it. Each of the other two multiplies its 64 rows by wgmma (m64 n256 k16, four a
// stage, one stage in flight behind the one that is issued) and accumulates in float32 registers, 128 a thread at N =
// 256, for which the first one gives up its own. In the end the tile, with bias, goes through shared memory (the stages
// are free by then) to a TMA store, which leaves out what lies beyond c; what a load finds beyond a and b is zero. With
// an epilogue it goes there as float32 sums, and is finished and written by ordinary code, 4 columns of a row a lane.
//
// 2 m n k operations for each of the batch; m n k (1 / 128 + 1 / N) elements are fetched, mostly from L2: blocks go
// through c in bands of 8 tiles, so that those that run together share rows and columns. Shared memory is read at 128
// bytes a clock: 64 x 256 x 16 products read 10 KiB, 80 clocks of the 128 that they take. Stages are 48 KiB (32 at N =
// 128), four of them (six).
//
// Tiles whose sum is innermost are rows of 64 (128 bytes, swizzled); the others are slabs of 64 rows of the sum, each
// 64 elements of m or n wide, which wgmma takes transposed.
#include "gemm/finish.h"
#include "gemm/gemm_sm90.h"
#include "simt/hopper.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kM = 128, kRows = 64, kK = 64, kThreads = 384, kBand = 8;
[[maybe_unused]] constexpr int kSlab = kRows * kK;  // elements of 64 rows of 128 bytes

template <int N>
constexpr int kStages = N == 256 ? 4 : 6;

struct Maps {
  TensorMap a, b, c;
};

struct Tiles {
  int down, across, steps;
  bool oneA, oneB;  // the same a, or b, for all of the batch
};

/** Where c is, for ordinary code: rows of m for each of the batch. */
template <class T>
struct Plain {
  T* c;
  int m, ld;
  int64_t stride;
  bool quads;
  Epilogue epilogue;
};

/** The row and column of tiles that a block has, in bands of kBand rows. */
[[maybe_unused]] __device__ __forceinline__ int2 tileOf(int block, const Tiles& tiles) {
  const int band = block / (kBand * tiles.across), high = min(kBand, tiles.down - band * kBand);
  const int within = block - band * kBand * tiles.across;
  return make_int2(band * kBand + within % high, within / high);
}

/** Fetches 64 of the sum by `count` slabs of 64 rows or columns from `first` on. */
template <bool kSumInner, class T>
__device__ __forceinline__ void fetch(T* to, const TensorMap* map, int count, int first, int sum, int z,
                                      Mbarrier* full) {
  for (int slab = 0; slab < count; ++slab) {
    if constexpr (kSumInner)
      tmaLoad(to + slab * kSlab, map, {sum, first + slab * kRows, z}, full);
    else
      tmaLoad(to + slab * kSlab, map, {first + slab * kRows, sum, z}, full);
  }
}

/** Slabs of 64 rows that follow each other; where the sum is not innermost, of 64 of the sum. */
template <bool kSumInner, class T>
__device__ __forceinline__ uint64_t descriptorOf(const T* tile) {
  return matrixDescriptor(tile, Swizzle::bytes128, kSumInner ? 16 : kSlab * 2, 1024);
}

template <class T, int N, bool kTransposeA, bool kTransposeB>
__global__ void __launch_bounds__(kThreads, 1)
    gemmSm90Kernel(const __grid_constant__ Maps maps, const __grid_constant__ Plain<T> plain, const Tiles tiles,
                   const T* bias, int n) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int S = kStages<N>;
  constexpr bool kSumInnerA = !kTransposeA, kSumInnerB = kTransposeB;
  constexpr int kStepA = kSumInnerA ? 32 : 2048,
                kStepB = kSumInnerB ? 32 : 2048;  // bytes from 16 of the sum to the next
  SharedArena arena;
  T* tileA = arena.take<T>(S * kM * kK, 1024);
  T* tileB = arena.take<T>(S * N * kK, 1024);
  Mbarrier* full = arena.take<Mbarrier>(S);
  Mbarrier* empty = arena.take<Mbarrier>(S);
  const int2 tile = tileOf(static_cast<int>(blockIdx.x), tiles);
  const int m0 = tile.x * kM, n0 = tile.y * N, z = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / 32;

  if (threadIdx.x == 0) {
    for (int s = 0; s < S; ++s) {
      mbarrierInit(full + s, 1);
      mbarrierInit(empty + s, 8);
    }
    mbarrierInitFence();
  }
  __syncthreads();

  if (warp < 4) {
    lowerRegisters<40>();
    if (warp == 0 && electOne()) {
      for (int it = 0; it < tiles.steps; ++it) {
        const int s = it % S, phase = it / S % 2;
        mbarrierWait(empty + s, phase ^ 1);
        mbarrierArriveExpect(full + s, (kM + N) * kK * 2);
        fetch<kSumInnerA>(tileA + s * kM * kK, &maps.a, kM / kRows, m0, it * kK, tiles.oneA ? 0 : z, full + s);
        fetch<kSumInnerB>(tileB + s * N * kK, &maps.b, N / kRows, n0, it * kK, tiles.oneB ? 0 : z, full + s);
      }
    }
  } else {
    raiseRegisters<232>();
    const int half = warp / 4 - 1, lane = static_cast<int>(threadIdx.x) % 32;
    float d[N / 2];
    for (int it = 0; it < tiles.steps; ++it) {
      const int s = it % S, phase = it / S % 2;
      mbarrierWait(full + s, phase);
      const uint64_t a = descriptorOf<kSumInnerA>(tileA + s * kM * kK + half * kSlab);
      const uint64_t b = descriptorOf<kSumInnerB>(tileB + s * N * kK);
      wgmmaHold(d);
      wgmmaFence();
#pragma unroll
      for (int j = 0; j < kK / 16; ++j)
        wgmma<T, N, kTransposeA, !kTransposeB>(d, advanced(a, kStepA * j), advanced(b, kStepB * j), it > 0 || j > 0);
      wgmmaCommit();
      // The stage before this one has been read.
      wgmmaWait<1>();
      if (it > 0 && lane == 0) mbarrierArrive(empty + (it - 1) % S);
    }
    wgmmaWait<0>();
    wgmmaHold(d);
    barSync(1, 256);  // no stage is read any more

    if (plain.epilogue.any()) {
      static_assert(2 * kRows * N * sizeof(float) <= S * N * kK * sizeof(T));
      float* sums = reinterpret_cast<float*>(tileB) + half * kRows * N;
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i)
          store(sums + placeOfSum<N>(warp % 4 * 16 + i * 8 + lane / 4, j * 8 + lane % 4 * 2),
                Pack<float, 2>{{d[j * 4 + i * 2], d[j * 4 + i * 2 + 1]}});
      }
      barSync(2 + half, 128);
      const int first = m0 + half * kRows;
      finishTile<T, kRows, N, 128>(
          plain.epilogue, sums, static_cast<int>(threadIdx.x) % 128, bias, n0, n, plain.quads,
          [&](int i) { return first + i < plain.m ? z * plain.m + first + i : -1; },
          [&](int i, int column, const float(&v)[4]) {
            writeFinished(plain.epilogue, plain.c, z * plain.stride + static_cast<int64_t>(first + i) * plain.ld,
                          column, n, plain.quads, v);
          });
      return;
    }

    // Boxes of 64 x 64, rows of 128 bytes whose chunks are permuted as the copy undoes it.
    T* tileC = tileB + half * kRows * N;
    const int row = warp % 4 * 16 + lane % 16;
#pragma unroll
    for (int j = 0; j < N / 16; ++j) {
      uint32_t r[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float low = d[8 * j + 2 * i], high = d[8 * j + 2 * i + 1];
        const int column = n0 + 16 * j + i / 2 * 8 + lane % 4 * 2;
        // n is a multiple of 8: both columns are in c, or neither.
        if (bias && column < n) {
          low += toFloat(bias[column]);
          high += toFloat(bias[column + 1]);
        }
        r[i] = pack2<T>(low, high);
      }
      const int chunk = (j % 4 * 2 + lane / 16) ^ (row % 8);
      stmatrix(tileC + j / 4 * kSlab + row * 64 + chunk * 8, r);
    }
    fenceProxyAsync();
    barSync(2 + half, 128);
    if (warp % 4 == 0 && electOne()) {
      for (int box = 0; box < N / 64; ++box)
        tmaStore(&maps.c, {n0 + box * 64, m0 + half * kRows, z}, tileC + box * kSlab);
      bulkCommit();
      bulkWaitRead<0>();
    }
  }
#else
  __trap();  // built for another chip
#endif
}

/** Boxes of 64 x 64 of matrices of `rows` x `columns`, `ld` elements from row to row. */
template <class T>
cudaError_t encode(TensorMap* map, const T* at, int rows, int columns, int ld, int64_t stride, int batch) {
  TensorView view = {};
  view.type = std::is_same_v<T, bf16> ? TensorType::bf16 : TensorType::f16;
  view.rank = 3;
  view.at = at;
  view.extent[0] = static_cast<uint64_t>(columns);
  view.extent[1] = static_cast<uint64_t>(rows);
  view.extent[2] = static_cast<uint64_t>(stride ? batch : 1);
  view.stride[0] = static_cast<uint64_t>(ld) * 2;
  view.stride[1] = static_cast<uint64_t>(stride ? stride : static_cast<int64_t>(ld) * rows) * 2;
  view.box[0] = view.box[1] = 64;
  view.box[2] = 1;
  view.step[0] = view.step[1] = view.step[2] = 1;
  view.swizzle = Swizzle::bytes128;
  return encodeTensorMap(map, view);
}

template <class T, int N, bool kTransposeA, bool kTransposeB>
cudaError_t run(const GemmShape& s, const Maps& maps, const Plain<T>& plain, const T* bias, cudaStream_t stream) {
  const Tiles tiles = {(s.m + kM - 1) / kM, (s.n + N - 1) / N, (s.k + kK - 1) / kK, s.strideA == 0, s.strideB == 0};
  const size_t shared = SharedLayout()
                            .take<T>(kStages<N> * kM * kK, 1024)
                            .template take<T>(kStages<N> * N * kK, 1024)
                            .template take<Mbarrier>(kStages<N>)
                            .template take<Mbarrier>(kStages<N>)
                            .bytes();
  return launch<gemmSm90Kernel<T, N, kTransposeA, kTransposeB>>(
      {dim3(tiles.down * tiles.across, s.batch), kThreads, shared, stream}, maps, plain, tiles, bias, s.n);
}

}  // namespace

bool gemmSm90Fits(const GemmShape& s) {
  const int64_t strides = s.lda | s.ldb | s.ldc | s.strideA | s.strideB | s.strideC | s.n;
  return s.k > 0 && s.batch < 65536 && strides % 8 == 0;
}

int gemmSm90Columns(const GemmShape& s) {
  constexpr int64_t kProcessors = 132;
  const auto waves = [&](int64_t columns) {
    const int64_t blocks = int64_t{s.batch} * ((s.m + kM - 1) / kM) * ((s.n + columns - 1) / columns);
    return (blocks + kProcessors - 1) / kProcessors * columns;
  };
  return waves(128) < waves(256) ? 128 : 256;
}

template <class T>
cudaError_t gemmSm90(const GemmShape& s, int columns, const T* a, const T* b, const T* bias, T* c, cudaStream_t stream,
                     const Epilogue& epilogue) {
  if (s.batch == 0 || s.m == 0 || s.n == 0) return cudaSuccess;
  Maps maps;
  cudaError_t status = s.transposeA ? encode(&maps.a, a, s.k, s.m, s.lda, s.strideA, s.batch)
                                    : encode(&maps.a, a, s.m, s.k, s.lda, s.strideA, s.batch);
  if (status != cudaSuccess) return status;
  status = s.transposeB ? encode(&maps.b, b, s.n, s.k, s.ldb, s.strideB, s.batch)
                        : encode(&maps.b, b, s.k, s.n, s.ldb, s.strideB, s.batch);
  if (status != cudaSuccess) return status;
  status = encode(&maps.c, c, s.m, s.n, s.ldc, s.strideC, s.batch);
  if (status != cudaSuccess) return status;
  const Plain<T> plain = {c, s.m, s.ldc, s.strideC, quadsFit(epilogue, c, s.n, s.ldc | s.strideC), epilogue};
  const auto with = [&](auto width) {
    constexpr int N = decltype(width)::value;
    if (s.transposeA)
      return s.transposeB ? run<T, N, true, true>(s, maps, plain, bias, stream)
                          : run<T, N, true, false>(s, maps, plain, bias, stream);
    return s.transposeB ? run<T, N, false, true>(s, maps, plain, bias, stream)
                        : run<T, N, false, false>(s, maps, plain, bias, stream);
  };
  return columns == 256 ? with(std::integral_constant<int, 256>()) : with(std::integral_constant<int, 128>());
}

#define REFL_GEMM_SM90(T) \
  template cudaError_t gemmSm90(const GemmShape&, int, const T*, const T*, const T*, T*, cudaStream_t, const Epilogue&);
REFL_GEMM_SM90(bf16)
REFL_GEMM_SM90(f16)

}  // namespace refl::cuda
