// Activations and their gradients. The gradients take x rather than the output: one exponential an element either way,
// and x is what the layer before keeps anyway. 15 to 40 operations an element in float32, near the memory limit.
#include "cpu/activation.h"

#include "cpu/map.h"

namespace refl::REFL_ISA {

namespace {

// Rows of geglu are split over threads; `run(x row, other row, y row, width)` does one.
template <class Fn>
Bound gatedRows(const NodeSpec& node, Fn run) {
  const int64_t width = node.inputs[0].dim(-1) / 2;
  const int64_t rows = width ? node.inputs[0].size() / (2 * width) : 0;
  const int64_t grain = std::max<int64_t>(1, kCostly / std::max<int64_t>(1, width));
  return {[rows, width, grain, run](const Args& args) {
            parallelFor(rows, grain, [&](int64_t begin, int64_t end) {
              for (int64_t r = begin; r < end; r++) run(args, r, width);
            });
          },
          0};
}

}  // namespace

Bound bindSilu(const NodeSpec& node) { return mapUnary(node, kCostly, Silu()); }
Bound bindSiluGrad(const NodeSpec& node) { return mapBinary(node, kCostly, SiluGrad()); }
Bound bindGelu(const NodeSpec& node) { return mapUnary(node, kCostly, Gelu()); }
Bound bindGeluGrad(const NodeSpec& node) { return mapBinary(node, kCostly, GeluGrad()); }
Bound bindQuickGelu(const NodeSpec& node) { return mapUnary(node, kCostly, QuickGelu()); }
Bound bindQuickGeluGrad(const NodeSpec& node) { return mapBinary(node, kCostly, QuickGeluGrad()); }

// Reads 2n and writes n elements a row.
Bound bindGeglu(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return gatedRows(node, [](const Args& args, int64_t row, int64_t n) {
      const T* a = args.in[0].as<T>() + row * 2 * n;
      const T* b = a + n;
      T* y = args.out[0].as<T>() + row * n;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) y[i] = a[i] * (b[i] * vec::normal(b[i]).cdf);
    });
  });
}

// Reads 3n and writes 2n elements a row; one normal distribution function serves both halves.
Bound bindGegluGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return gatedRows(node, [](const Args& args, int64_t row, int64_t n) {
      const T* a = args.in[0].as<T>() + row * 2 * n;
      const T* b = a + n;
      const T* dy = args.in[1].as<T>() + row * n;
      T* da = args.out[0].as<T>() + row * 2 * n;
      T* db = da + n;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        const auto normal = vec::normal(b[i]);
        da[i] = dy[i] * (b[i] * normal.cdf);
        db[i] = dy[i] * a[i] * (normal.cdf + b[i] * normal.pdf);
      }
    });
  });
}

}  // namespace refl::REFL_ISA
