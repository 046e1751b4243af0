// Matrix products of float32: core_f32.h's main loop with plain matrices on both sides, in all four layouts. The
// blocks of a row of tiles run side by side, so a row of a is read from memory once and for the other tiles from L2.
#include "gemm/core_tf32.h"
#include "gemm/gemm.h"

namespace refl::cuda {
namespace {

using namespace f32;

struct Problem {
  GemmShape shape;
  const float *a, *b, *bias;
  float* c;
  int splits;
  int64_t splitStride;  // from one partial result to the next
  bool wideA, wideB, wideC, quads;
  Epilogue epilogue;
};

/** A matrix whose lines [first, lines) are a tile's, and along which the depth runs or not. */
struct Matrix {
  const float* at;
  int ld, first, lines;
  __device__ __forceinline__ auto depth(int k) const {
    return [this, k](int row) -> From {
      const bool present = first + row < lines;
      return {present ? at + static_cast<int64_t>(first + row) * ld + k : at, present};
    };
  }
  __device__ __forceinline__ auto column(int j) const {
    return [this, j](int k) -> From { return {at + static_cast<int64_t>(k) * ld + first + j, true}; };
  }
};

template <Layout kLayout, int kLines, int kThreads>
__device__ __forceinline__ void copyMatrix(float* tile, const Matrix& from, bool wide, int k, int end) {
  if constexpr (kLayout == Layout::kRows) {
    if (wide)
      copyRows<kLines, kThreads, 4>(tile, k, end, from);
    else
      copyRows<kLines, kThreads, 1>(tile, k, end, from);
  } else {
    if (wide)
      copyColumns<kLines, kThreads, 4>(tile, k, end, from.lines - from.first, from);
    else
      copyColumns<kLines, kThreads, 1>(tile, k, end, from.lines - from.first, from);
  }
}

template <class Product, class T, Layout kA, Layout kB>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks) gemmF32Kernel(const __grid_constant__ Problem p) {
  const GemmShape& s = p.shape;
  const int across = (s.n + T::kN - 1) / T::kN, down = (s.m + T::kM - 1) / T::kM;
  int block = static_cast<int>(blockIdx.x);
  const int split = static_cast<int>(blockIdx.y);
  const int column = block % across * T::kN;
  block /= across;
  const int row = block % down * T::kM;
  const int64_t item = block / down;
  const Matrix a = {p.a + item * s.strideA, s.lda, row, s.m}, b = {p.b + item * s.strideB, s.ldb, column, s.n};
  float* c = p.c + split * p.splitStride + item * s.strideC;

  const int64_t steps = (s.k + kDepth - 1) / kDepth;
  const int first = static_cast<int>(steps * split / p.splits), last = static_cast<int>(steps * (split + 1) / p.splits);
  multiply<Product::template Of, T, kA, kB, true>(
      first, last, {column, s.n, p.wideC, p.quads, p.bias, &p.epilogue},
      [&](float* left, float* right, int k) {
        copyMatrix<kA, T::kM, T::kThreads>(left, a, p.wideA, k, s.k);
        copyMatrix<kB, T::kN, T::kThreads>(right, b, p.wideB, k, s.k);
      },
      [&](int i) -> Row {
        if (row + i >= s.m) return {nullptr, -1};
        return {c + static_cast<int64_t>(row + i) * s.ldc, static_cast<int>(item) * s.m + row + i};
      });
}

Plan planOf(const GemmShape& s) { return f32::planOf(s.batch, s.m, s.n, s.k, s.tf32); }

bool wideRows(const float* at, int ld, int64_t stride) { return aligned16(at) && ld % 4 == 0 && stride % 4 == 0; }

}  // namespace

template <>
size_t gemmScratch<float>(const GemmShape& s) {
  const Plan plan = planOf(s);
  return plan.splits == 1 ? 0 : sizeof(float) * plan.splits * s.batch * s.m * s.n;
}

template <>
cudaError_t gemm<float>(const GemmShape& s, const float* a, const float* b, const float* bias, float* c,
                        std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue) {
  const Plan plan = planOf(s);
  const int64_t one = static_cast<int64_t>(s.m) * s.n;
  Problem p = {s,
               a,
               b,
               bias,
               c,
               plan.splits,
               0,
               wideRows(a, s.lda, s.strideA),
               wideRows(b, s.ldb, s.strideB),
               false,
               quadsFit(epilogue, c, s.n, s.ldc | s.strideC),
               epilogue};
  if (plan.splits > 1) {
    p.c = reinterpret_cast<float*>(scratch);
    p.bias = nullptr;
    p.epilogue = {};
    p.splitStride = s.batch * one;
    p.shape.ldc = s.n;
    p.shape.strideC = one;
  }
  p.wideC = wideRows(p.c, p.shape.ldc, p.shape.strideC) && p.splitStride % 4 == 0;
  const cudaError_t error = withProduct(s.tf32, plan.tile, [&](auto product, auto tile) {
    using Product = decltype(product);
    using T = decltype(tile);
    const int64_t tiles = static_cast<int64_t>((s.m + T::kM - 1) / T::kM) * ((s.n + T::kN - 1) / T::kN) * s.batch;
    const Launch at = {dim3(static_cast<unsigned>(tiles), plan.splits), T::kThreads, 0, stream};
    constexpr Layout kRows = Layout::kRows, kColumns = Layout::kColumns;
    if (s.transposeA && s.transposeB) return launch<gemmF32Kernel<Product, T, kColumns, kRows>>(at, p);
    if (s.transposeA) return launch<gemmF32Kernel<Product, T, kColumns, kColumns>>(at, p);
    if (s.transposeB) return launch<gemmF32Kernel<Product, T, kRows, kRows>>(at, p);
    return launch<gemmF32Kernel<Product, T, kRows, kColumns>>(at, p);
  });
  if (plan.splits == 1 || error != cudaSuccess) return error;
  return sumPartials({p.c, bias, c, plan.splits, s.batch * one, s.n, s.m, s.ldc, s.strideC, epilogue}, stream);
}

}  // namespace refl::cuda
