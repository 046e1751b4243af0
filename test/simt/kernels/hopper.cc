// sm_90a's instructions against float64, and the product with each of its faults.
#include "hopper.h"

#include "harness.h"

using namespace harness;
using simt::Swizzle;
using simt::TensorType;
using simt::TensorView;

namespace {

std::vector<double> timesTransposed(const std::vector<double>& a, const std::vector<double>& b, int m, int n, int k,
                                    double start) {
  std::vector<double> c(m * n, start);
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j)
      for (int l = 0; l < k; ++l) c[i * n + j] += a[i * k + l] * b[j * k + l];
  return c;
}

void product(HopperFault fault, int m, int n, int k) {
  allowShared(227 * 1024);
  const Input<bf16> a(uniform(m * k, -1, 1, 21)), b(uniform(n * k, -1, 1, 22));
  Output<bf16> c(m * n);
  check(hopperProduct(fault, a.data(), b.data(), c.data(), m, n, k));
  const std::vector<double> exact = timesTransposed(a.values(), b.values(), m, n, k, 0);
  std::vector<double> naive = exact;
  for (double& x : naive) x = rounded<bf16>(x);
  expectNoWorse(c.values(), exact, naive, 2, "C");
}

template <class T>
void groups(int n, bool transposed, bool fragments, Swizzle swizzle) {
  const int k = 16;
  const Input<T> a(uniform(64 * k, -1, 1, 31)), b(uniform(n * k, -1, 1, 32));
  Output<float> c(64 * n);
  check(groupProduct(a.data(), b.data(), c.data(), n, transposed, fragments, swizzle));
  std::vector<double> rows = b.values();
  if (transposed)
    for (int i = 0; i < n; ++i)
      for (int l = 0; l < k; ++l) rows[i * k + l] = static_cast<double>(simt::toFloat(b[l * n + i]));
  expectClose(c.values(), timesTransposed(a.values(), rows, 64, n, k, 1), 1e-6, "C");
}

void groupsTf32(bool fragments, Swizzle swizzle) {
  std::vector<double> x(64 * 8), y(64 * 8);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<double>(i * 37 % 101) - 50, y[i] = static_cast<double>(i * 53 % 97) - 48;
  const Input<float> a(x), b(y);
  Output<float> c(64 * 64);
  check(groupProductTf32(reinterpret_cast<simt::tf32*>(a.data()), reinterpret_cast<simt::tf32*>(b.data()), c.data(),
                         fragments, swizzle));
  expectClose(c.values(), timesTransposed(x, y, 64, 64, 8, 1), 0, "C");
}

// Boxes that hang over every side, and one with steps.
void boxes() {
  for (int rank = 1; rank <= 5; ++rank) {
    for (const uint32_t step : {1u, 2u}) {
      TensorView view = {};
      view.type = TensorType::f32;
      view.rank = rank;
      const uint64_t extents[5] = {12, 5, 4, 3, 2};
      const uint32_t sides[5] = {8, 4, 2, 2, 2};
      uint64_t size = 1;
      uint32_t count = 8;
      for (int i = 0; i < rank; ++i) {
        view.extent[i] = extents[i];
        view.box[i] = sides[i];
        view.step[i] = i == 1 ? step : 1;
        if (i > 0) view.stride[i - 1] = size * 4, count *= (sides[i] + view.step[i] - 1) / view.step[i];
        size *= extents[i];
      }
      const Input<float> in(uniform(size, 1, 2, 41));
      view.at = in.data();
      for (const int shift : {-1, 0, 3}) {
        const int at[5] = {4 * shift, shift, -shift, shift, 0};
        Output<float> out(count);
        check(box(view, at, out.data()));
        for (uint32_t i = 0; i < count; ++i) {
          uint64_t from = 0, pitch = 1;
          bool inside = true;
          for (uint32_t dim = 0, rest = i; dim < static_cast<uint32_t>(rank); ++dim) {
            const uint32_t extent = (sides[dim] + view.step[dim] - 1) / view.step[dim];
            const int64_t index = at[dim] + static_cast<int64_t>(rest % extent * view.step[dim]);
            inside = inside && index >= 0 && index < static_cast<int64_t>(extents[dim]);
            from += static_cast<uint64_t>(index) * pitch;
            pitch *= extents[dim];
            rest /= extent;
          }
          if (out[i] != (inside ? in[from] : 0.0f)) fail("rank %d, shift %d, element %u", rank, shift, i);
        }
      }
    }
  }
}

const bool added = [] {
  addCase("without faults", [] {
    for (const int k : {64, 200, 448}) product(HopperFault::none, 64, 64, k);
    product(HopperFault::none, 100, 72, 136);
  });
  addCase("boxes of ranks 1 to 5", boxes);
  const char* names[] = {"none", "32", "64", "128"};
  for (const Swizzle swizzle : {Swizzle::none, Swizzle::bytes32, Swizzle::bytes64, Swizzle::bytes128}) {
    addCase(std::string("wgmma, swizzle ") + names[static_cast<int>(swizzle)], [swizzle] {
      for (const bool fragments : {false, true}) {
        groups<bf16>(64, false, fragments, swizzle);
        groups<f16>(64, false, fragments, swizzle);
        groupsTf32(fragments, swizzle);
        if (swizzle != Swizzle::none) groups<f16>(64, true, fragments, swizzle);
      }
      groups<bf16>(32, false, false, swizzle);
    });
  }
  const std::pair<const char*, HopperFault> faults[] = {
      {"missing proxy fence", HopperFault::missingProxyFence},
      {"wait on the wrong parity", HopperFault::wrongParity},
      {"too many bytes expected", HopperFault::expectTooMany},
      {"too few bytes expected", HopperFault::expectTooFew},
      {"accumulator read before its wait", HopperFault::accumulatorBeforeWait},
      {"accumulator written before its wait", HopperFault::accumulatorWritten},
      {"wrong stride in a descriptor", HopperFault::wrongStride},
      {"wrong swizzle in a descriptor", HopperFault::wrongSwizzle},
      {"missing wgmma fence", HopperFault::missingWgmmaFence},
      {"missing wait for a full stage", HopperFault::missingFullWait},
      {"missing wait for an empty stage", HopperFault::missingEmptyWait},
      {"stage released too early", HopperFault::earlyRelease},
      {"missing wgmma wait", HopperFault::missingWgmmaWait},
      {"missing fence after mbarrier.init", HopperFault::missingInitFence},
      {"missing barrier after mbarrier.init", HopperFault::missingInitBarrier},
      {"missing barrier before a bulk store", HopperFault::missingStoreBarrier},
      {"missing wait for a bulk store", HopperFault::missingStoreWait},
      {"too many registers", HopperFault::tooManyRegisters},
      {"too few arrivals asked for", HopperFault::tooFewArrivals},
  };
  for (const auto& [name, fault] : faults) addCase(name, [fault = fault] { product(fault, 64, 64, 448); });
  return true;
}();

}  // namespace
