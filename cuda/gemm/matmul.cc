// Binders of the products of matrices.
#include <cstdlib>
#include <cstring>

#include "backend/kernel.h"
#include "gemm/bind_epilogue.h"
#include "gemm/gemm_sm90.h"

namespace refl::cuda {
namespace {

/** Elements of rows x columns, which kernels index by 32 bits within a matrix. */
int64_t matrix(const NodeSpec& node, int64_t rows, int64_t columns) { return narrow(node, rows * columns); }

/** REFL_SM90=1 takes the kernels of sm_90a where they fit: to measure them, while no chip has shown that they are
 * faster. */
bool wantsSm90() {
  const char* wanted = std::getenv("REFL_SM90");
  return wanted && std::strcmp(wanted, "1") == 0;
}

Bound bindProduct(const NodeSpec& node, const GemmShape& shape, bool bias) {
  const BoundEpilogue epilogue(node, node.op->inputs.size());
  if (node.outputs[0].size() == 0) return nothing();
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if constexpr (sizeof(T) == 2) {
      if (wantsSm90() && gemmSm90Fits(shape))
        return {[=, columns = gemmSm90Columns(shape)](const Args& a) {
          return gemmSm90(shape, columns, a.in[0].as<const T>(), a.in[1].as<const T>(),
                          bias ? a.in[2].as<const T>() : nullptr, a.out[0].as<T>(), a.stream, epilogue.at(a));
        }};
    }
    const auto run = [=](const Args& a) {
      return gemm<T>(shape, a.in[0].as<const T>(), a.in[1].as<const T>(), bias ? a.in[2].as<const T>() : nullptr,
                     a.out[0].as<T>(), a.scratch, a.stream, epilogue.at(a));
    };
    return {run, gemmScratch<T>(shape)};
  });
}

}  // namespace

Bound bindMatmul(const NodeSpec& node) {
  const Operand &a = node.inputs[0], &b = node.inputs[1], &y = node.outputs[0];
  const bool transposeA = node.flag("transposeA"), transposeB = node.flag("transposeB"), one = b.rank() == 2;
  int64_t batch = 1, rows = y.dim(-2);
  const int64_t columns = y.dim(-1), depth = a.dim(transposeA ? -2 : -1);
  for (int64_t i = 0; i < y.rank() - 2; i++) batch *= y.dim(i);
  if (one && !transposeA) {  // the batch is then more rows
    rows *= batch;
    batch = 1;
  }
  const int64_t strideA = matrix(node, rows, depth), strideB = matrix(node, depth, columns),
                strideC = matrix(node, rows, columns);
  GemmShape shape = {};
  shape.batch = narrow(node, batch);
  shape.m = narrow(node, rows);
  shape.n = narrow(node, columns);
  shape.k = narrow(node, depth);
  shape.transposeA = transposeA;
  shape.transposeB = transposeB;
  shape.lda = transposeA ? shape.m : shape.k;
  shape.ldb = transposeB ? shape.k : shape.n;
  shape.ldc = shape.n;
  shape.strideA = strideA;
  shape.strideB = one ? 0 : strideB;
  shape.strideC = strideC;
  shape.tf32 = node.tf32;
  return bindProduct(node, shape, false);
}

Bound bindLinear(const NodeSpec& node) {
  const Operand &weight = node.inputs[1], &y = node.outputs[0];
  const int64_t out = weight.dim(0), in = weight.dim(1);
  int64_t rows = 1;
  for (int64_t i = 0; i + 1 < y.rank(); i++) rows *= y.dim(i);
  matrix(node, rows, in);
  matrix(node, rows, out);
  matrix(node, out, in);
  const int m = narrow(node, rows), n = narrow(node, out), k = narrow(node, in);
  return bindProduct(node, {1, m, n, k, false, true, k, k, n, 0, 0, 0, node.tf32}, node.inputs[2].present);
}

}  // namespace refl::cuda
