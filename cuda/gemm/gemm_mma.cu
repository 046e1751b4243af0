// Matrix products of bf16 and f16 on tensor cores, all four layouts: core_mma.h says how. 2 m n k operations for each
// of the batch; with tiles of M x N, m n k (1 / M + 1 / N) elements are read, mostly from L2, and m n are written.
#include "gemm/gemm_mma.h"
#include "gemm/launch_mma.h"

namespace refl::cuda {
namespace {

using namespace core;

template <class T, bool kTransposeA, bool kTransposeB>
struct Product {
  using Element = T;
  static constexpr bool kSumInnerA = !kTransposeA, kSumInnerB = kTransposeB, kOnlyPartial = false;
  Matrix<T> left, right;
  int m, k, ldc;
  int64_t strideA, strideB, strideC;

  SIMT_DEVICE Matrix<T> a(int z) const {
    return {left.data + z * strideA, left.rows, left.columns, left.ld, left.vector};
  }
  SIMT_DEVICE Matrix<T> b(int z) const {
    return {right.data + z * strideB, right.rows, right.columns, right.ld, right.vector};
  }
  SIMT_DEVICE int rows(int) const { return m; }
  SIMT_DEVICE int depth(int) const { return k; }
  SIMT_DEVICE int64_t rowOf(int z, int row) const { return static_cast<int64_t>(z) * m + row; }
  SIMT_DEVICE int64_t elementOf(int z, int row) const { return z * strideC + static_cast<int64_t>(row) * ldc; }
};

template <class T, bool kTransposeA, bool kTransposeB>
cudaError_t multiply(const GemmShape& s, const MmaPlan& plan, const T* a, const T* b, const Output<T>& output,
                     cudaStream_t stream) {
  const int widthA = widthOf(a, s.lda | s.strideA), widthB = widthOf(b, s.ldb | s.strideB);
  const Matrix<T> left = {a, kTransposeA ? s.k : s.m, kTransposeA ? s.m : s.k, s.lda, widthA};
  const Matrix<T> right = {b, kTransposeB ? s.n : s.k, kTransposeB ? s.k : s.n, s.ldb, widthB};
  const Product<T, kTransposeA, kTransposeB> product = {left, right, s.m, s.k, s.ldc, s.strideA, s.strideB, s.strideC};
  return launchMma(product, mmaSizeOf(s), plan, widthA == 8 && widthB == 8, output, stream);
}

}  // namespace

MmaSize mmaSizeOf(const GemmShape& shape) { return {shape.batch, shape.m, shape.n, shape.k}; }

template <class T>
cudaError_t gemmMma(const GemmShape& shape, const MmaPlan& plan, const T* a, const T* b, const T* bias, T* c,
                    std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue) {
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) return cudaSuccess;
  const int pitch = static_cast<int>(partialPitch(shape.n));
  const bool split = plan.splits > 1;
  const Output<T> output = {c,
                            bias,
                            split ? reinterpret_cast<float*>(scratch) : nullptr,
                            static_cast<int64_t>(shape.batch) * shape.m * pitch,
                            shape.n,
                            pitch,
                            widthOf(c, shape.ldc | shape.strideC) == 8,
                            quadsFit(epilogue, c, shape.n, shape.ldc | shape.strideC),
                            epilogue};
  const auto product = shape.transposeA   ? shape.transposeB ? multiply<T, true, true> : multiply<T, true, false>
                         : shape.transposeB ? multiply<T, false, true>
                                          : multiply<T, false, false>;
  const cudaError_t error = product(shape, plan, a, b, output, stream);
  if (error != cudaSuccess || !split) return error;
  return sumPartials(output, plan.splits, shape.m, shape.ldc, shape.strideC, stream);
}

template <class T>
size_t gemmScratch(const GemmShape& shape) {
  const MmaSize size = mmaSizeOf(shape);
  return partialBytes(size, planMma(size).splits);
}

template <class T>
cudaError_t gemm(const GemmShape& shape, const T* a, const T* b, const T* bias, T* c, std::byte* scratch,
                 cudaStream_t stream, const Epilogue& epilogue) {
  return gemmMma(shape, planMma(mmaSizeOf(shape)), a, b, bias, c, scratch, stream, epilogue);
}

#define REFL_GEMM_MMA(T)                                                                                       \
  template cudaError_t gemmMma(const GemmShape&, const MmaPlan&, const T*, const T*, const T*, T*, std::byte*, \
                               cudaStream_t, const Epilogue&);                                                 \
  template size_t gemmScratch<T>(const GemmShape&);                                                            \
  template cudaError_t gemm(const GemmShape&, const T*, const T*, const T*, T*, std::byte*, cudaStream_t,      \
                            const Epilogue&);
REFL_GEMM_MMA(bf16)
REFL_GEMM_MMA(f16)

}  // namespace refl::cuda
