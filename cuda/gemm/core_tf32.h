// Products of float32 rounded to tf32 (10 bits of mantissa) on tensor cores, with float32 sums: core_f32.h's main loop,
// with mma.sync instead of its multiply-adds.
//
// Four warps share a tile: 64 x 32 each of the large one, 32 x 32 of the small, 64 x 8 of the tall. A step of 16 depths
// is two of mma's; fragments come by plain 4-byte reads, since the transposing ldmatrix moves 16 bits, rounded as they
// come. With rows of 20 floats and columns of 8 more than there are lines, the 32 lanes meet 32 banks in either layout.
// The large tile's warp reads 24 x 128 bytes for 16 products of 16 x 8 x 8. The sums of a tile are chains in the order
// of the depth, 8 products at a time.
#pragma once
#include "gemm/core_f32.h"

namespace refl::cuda::f32 {

template <class T, Layout kA, Layout kB>
class Rounded {
  static constexpr int kWarps = T::kThreads / 32, kWarpsN = T::kN >= 64 ? 2 : 1, kWarpsM = kWarps / kWarpsN;
  static constexpr int kWarpM = T::kM / kWarpsM, kWarpN = T::kN / kWarpsN;
  static constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;
  static_assert(kWarpM % 16 == 0 && kWarpN % 8 == 0, "a warp has whole products");

 public:
  static constexpr int V = 2, kRows = kTilesM * 2, kParts = kTilesN;

  __device__ __forceinline__ int row(int i) const { return warpRow() + i * 8 + lane() / 4; }
  __device__ __forceinline__ int column(int part) const { return warpColumn() + part * 8 + lane() % 4 * 2; }
  __device__ __forceinline__ Pack<float, 2> part(int i, int part) const {
    const float(&sum)[4] = sums_[i / 2][part];
    return {{sum[i % 2 * 2], sum[i % 2 * 2 + 1]}};
  }

  __device__ __forceinline__ void add(const float* left, const float* right) {
    const int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      uint32_t a[kTilesM][4], b[kTilesN][2];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          a[m][i] = toTf32(at<kA, T::kM>(left, warpRow() + m * 16 + i % 2 * 8 + g, k + i / 2 * 4 + t));
      }
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) b[n][i] = toTf32(at<kB, T::kN>(right, warpColumn() + n * 8 + g, k + i * 4 + t));
      }
      mmaTiles<tf32>(sums_, a, b);
    }
  }

 private:
  template <Layout kLayout, int kLines>
  static __device__ __forceinline__ float at(const float* tile, int line, int depth) {
    return tile[kLayout == Layout::kRows ? line * kPitch + depth : depth * kColumnPitch<kLines> + line];
  }
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ __forceinline__ int warpRow() { return static_cast<int>(threadIdx.x) / 32 / kWarpsN * kWarpM; }
  static __device__ __forceinline__ int warpColumn() { return static_cast<int>(threadIdx.x) / 32 % kWarpsN * kWarpN; }

  float sums_[kTilesM][kTilesN][4] = {};
};

/** fn(a tag of Exact or Rounded, the plan's tile). */
template <template <class, Layout, Layout> class P>
struct ProductTag {
  template <class T, Layout kA, Layout kB>
  using Of = P<T, kA, kB>;
};
template <class Fn>
cudaError_t withProduct(bool tf32, Plan::Kind tile, Fn&& fn) {
  if (!tf32) return withTile(tile, [&](auto t) { return fn(ProductTag<Exact>(), t); });
  return withTile(tile, [&](auto t) {
    // Where a plan has no tile for tf32, none is compiled.
    using T = std::conditional_t<std::is_same_v<decltype(t), Wide>, Small, decltype(t)>;
    return fn(ProductTag<Rounded>(), T());
  });
}

}  // namespace refl::cuda::f32
