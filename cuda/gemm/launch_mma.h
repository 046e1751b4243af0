// Launches core_mma.h's kernel for a Problem, and the kernel that adds the partial sums.
#pragma once
#include "gemm/core_mma.h"
#include "gemm/plan_mma.h"

namespace refl::cuda::core {

constexpr int kSumThreads = 256;

/** Elements, 8, 4, 2 or 1, that may be read at once wherever `address` (in bytes, or several or-ed) and all of the
 * `strides` (in elements) lead. */
template <class T>
int widthOf(const T* pointer, int64_t strides) {
  const int64_t all = static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer) / sizeof(T)) | strides;
  return all % 8 == 0 ? 8 : all % 4 == 0 ? 4 : all % 2 == 0 ? 2 : 1;
}

/** c = the sum of the splits (+ bias), through the epilogue, four columns a thread: 4 bytes read for each split and
 * element, in order. Rows of partial sums are counted over all products, of `rows` each; those of c are ldc apart and
 * its products strideC. */
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    sumPartialsKernel(const __grid_constant__ Output<T> output, int splits, int rows, int ldc, int64_t strideC) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x) * 4;
  if (i >= output.partialSize) return;
  const int64_t row = i / output.pitch;
  const int column = static_cast<int>(i % output.pitch);
  Pack<float, 4> sum = load<4>(output.partial + i);
  for (int split = 1; split < splits; ++split) {
    const Pack<float, 4> part = load<4>(output.partial + split * output.partialSize + i);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] += part[j];
  }
  float bias[4] = {}, v[1][4];
  if (output.bias) readPart(output.bias, column, output.columns, false, bias);
#pragma unroll
  for (int j = 0; j < 4; ++j) v[0][j] = sum[j] + bias[j];
  const int place[1] = {static_cast<int>(row)};
  finish<T>(output.epilogue, place, column, output.columns, output.quads, v);
  writeFinished(output.epilogue, output.c, row / rows * strideC + row % rows * ldc, column, output.columns,
                output.quads, v[0]);
}

template <class Tile, bool kWide, class Problem>
cudaError_t launchTile(const Problem& problem, const MmaSize& size, int splits,
                       const Output<typename Problem::Element>& output, cudaStream_t stream) {
  using T = typename Problem::Element;
  const Grid grid = {static_cast<int>((size.rows + Tile::kM - 1) / Tile::kM),
                     static_cast<int>((size.columns + Tile::kN - 1) / Tile::kN), splits};
  const size_t shared = SharedLayout()
                            .take<T>(kStages * Tile::kM * kDepth, 128)
                            .template take<T>(kStages * Tile::kN * kDepth, 128)
                            .bytes();
  const auto blocks = static_cast<unsigned>(size.count * splits * grid.tilesM * grid.tilesN);
  return launch<mmaKernel<Tile, kWide, Problem>>({blocks, kThreads, shared, stream}, problem, grid, output);
}

/** The products by `plan`. `wide`: both operands can be read 16 bytes at once. */
template <class Problem>
cudaError_t launchMma(const Problem& problem, const MmaSize& size, const MmaPlan& plan, bool wide,
                      const Output<typename Problem::Element>& output, cudaStream_t stream) {
  if (!wide) return launchTile<SmallTile, false>(problem, size, plan.splits, output, stream);
  switch (plan.tile) {
    case MmaTile::large:
      return launchTile<LargeTile, true>(problem, size, plan.splits, output, stream);
    case MmaTile::middle:
      return launchTile<MiddleTile, true>(problem, size, plan.splits, output, stream);
    default:
      return launchTile<SmallTile, true>(problem, size, plan.splits, output, stream);
  }
}

template <class T>
cudaError_t sumPartials(const Output<T>& output, int splits, int rows, int ldc, int64_t strideC, cudaStream_t stream) {
  const int64_t threads = output.partialSize / 4;
  return launch<sumPartialsKernel<T>>(
      {static_cast<unsigned>((threads + kSumThreads - 1) / kSumThreads), kSumThreads, 0, stream}, output, splits, rows,
      ldc, strideC);
}

}  // namespace refl::cuda::core
