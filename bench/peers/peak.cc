// The machine's limits, taken beside every measurement: "fma THREADS" answers the rate of fused multiply-adds in
// registers in GFLOP/s, "copy THREADS" that of memory copied from one array to another in GB/s, read and written.
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "requests.h"

namespace {

#ifdef __AVX512F__
using Vector = __m512;
Vector all(float x) { return _mm512_set1_ps(x); }
Vector fma(Vector x, Vector a, Vector b) { return _mm512_fmadd_ps(x, a, b); }
Vector plus(Vector x, Vector y) { return _mm512_add_ps(x, y); }
#else
using Vector = __m256;
Vector all(float x) { return _mm256_set1_ps(x); }
Vector fma(Vector x, Vector a, Vector b) { return _mm256_fmadd_ps(x, a, b); }
Vector plus(Vector x, Vector y) { return _mm256_add_ps(x, y); }
#endif
constexpr int kLanes = sizeof(Vector) / sizeof(float);

// Twelve chains, more than the latency of an instruction times how many start a cycle. Each is x = x / 2 + 1, whose
// limit is 2: the sum at the end shows that all was computed. The empty asm keeps every step, and every chain in a
// register.
constexpr int kChains = 12;
float chains(int64_t steps) {
  Vector a = all(0.5f), b = all(1.0f);
  Vector c0 = b, c1 = b, c2 = b, c3 = b, c4 = b, c5 = b, c6 = b, c7 = b, c8 = b, c9 = b, c10 = b, c11 = b;
  for (int64_t i = 0; i < steps; i++) {
    c0 = fma(c0, a, b), c1 = fma(c1, a, b), c2 = fma(c2, a, b), c3 = fma(c3, a, b);
    c4 = fma(c4, a, b), c5 = fma(c5, a, b), c6 = fma(c6, a, b), c7 = fma(c7, a, b);
    c8 = fma(c8, a, b), c9 = fma(c9, a, b), c10 = fma(c10, a, b), c11 = fma(c11, a, b);
    asm volatile("" : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5));
    asm volatile("" : "+v"(c6), "+v"(c7), "+v"(c8), "+v"(c9), "+v"(c10), "+v"(c11));
  }
  const Vector sum = plus(plus(plus(c0, c1), plus(c2, c3)),
                          plus(plus(plus(c4, c5), plus(c6, c7)), plus(plus(c8, c9), plus(c10, c11))));
  float lanes[kLanes], total = 0;
  std::memcpy(lanes, &sum, sizeof(sum));
  for (float lane : lanes) total += lane;
  return total;
}

std::string fmaRate(int threads) {
  constexpr int64_t kSteps = 4'000'000;
  bool right = true;
  const double seconds = secondsOf([&] {
#pragma omp parallel num_threads(threads) reduction(&& : right)
    right = std::abs(chains(kSteps) - 2.0f * kChains * kLanes) < 1e-3f;
  });
  if (!right) throw std::runtime_error("the chains did not reach their limit");
  const double operations = 2.0 * kSteps * kChains * kLanes * threads;
  return "{\"rate\":" + std::to_string(operations / seconds / 1e9) + "}";
}

std::string copyRate(int threads) {
  constexpr size_t kBytes = size_t{64} << 20;  // a thread, and far beyond its caches
  static std::vector<std::vector<char>> from, to;
  for (int t = static_cast<int>(from.size()); t < threads; t++)
    from.emplace_back(kBytes, 1), to.emplace_back(kBytes, 2);
  const double seconds = secondsOf([&] {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) std::memcpy(to[t].data(), from[t].data(), kBytes);
  });
  return "{\"rate\":" + std::to_string(2.0 * kBytes * threads / seconds / 1e9) + "}";
}

}  // namespace

int main() {
  return serve([](Words& words) {
    const auto what = next<std::string>(words);
    const int threads = next<int>(words);
    return what == "fma" ? fmaRate(threads) : copyRate(threads);
  });
}
