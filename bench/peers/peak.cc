// The machine's float32 FMA peak in GFLOP/s: every thread runs independent fused multiply-adds on registers for half
// a second. Usage: peak THREADS. Compiled by bench/peers.ts with -march=native.
#include <omp.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#ifdef __AVX512F__
typedef float Vector __attribute__((vector_size(64)));
#else
typedef float Vector __attribute__((vector_size(32)));
#endif

static inline void keep(Vector& x) { asm volatile("" : "+v"(x)); }

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  double total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    // Ten chains cover two units of four cycles' latency each. They are named one by one, and passed through an empty
    // asm, because an array of them would live in memory.
    const Vector scale = Vector{} + 0.999f, shift = Vector{} + 0.001f, one = Vector{} + 1.0f;
    Vector a = one, b = one, c = one, d = one, e = one, f = one, g = one, h = one, i = one, j = one;
    double steps = 0, seconds = 0;
    const auto start = Clock::now();
    while (seconds < 0.5) {
      for (int k = 0; k < 100000; k++) {
#define STEP(x) x = x * scale + shift, keep(x)
        STEP(a), STEP(b), STEP(c), STEP(d), STEP(e), STEP(f), STEP(g), STEP(h), STEP(i), STEP(j);
      }
      steps += 100000;
      seconds = std::chrono::duration<double>(Clock::now() - start).count();
    }
    total += steps * 10 * (sizeof(Vector) / 4) * 2 / seconds / 1e9;
  }
  std::printf("%.1f\n", total);
}
