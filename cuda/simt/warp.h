// Reductions over a warp and barriers over part of a block. Under the emulator a reduction is one meeting of the warp
// and not five, in the same order of additions: prefer these to loops of shuffles.
#pragma once
#include "simt/shared.h"

namespace simt {

constexpr unsigned kFullWarp = 0xffffffffu;

#ifdef __CUDACC__
/** Sums of each of v[0..N) over groups of `width` lanes (a power of two), to all lanes. All 32 lanes call it. */
template <int N, class T>
SIMT_DEVICE void warpSum(T (&v)[N], int width = 32) {
#pragma unroll
  for (int lanes = width / 2; lanes > 0; lanes /= 2) {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += __shfl_xor_sync(kFullWarp, v[i], lanes);
  }
}
template <int N, class T>
SIMT_DEVICE void warpMax(T (&v)[N], int width = 32) {
#pragma unroll
  for (int lanes = width / 2; lanes > 0; lanes /= 2) {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = max(v[i], __shfl_xor_sync(kFullWarp, v[i], lanes));
  }
}
/** The sum of `v` over groups of `width` lanes, to all of them. */
template <class T>
SIMT_DEVICE T warpSum(T v, int width = 32) {
  T one[1] = {v};
  warpSum(one, width);
  return one[0];
}
template <class T>
SIMT_DEVICE T warpMax(T v, int width = 32) {
  T one[1] = {v};
  warpMax(one, width);
  return one[0];
}
/** Waits at barrier `id` (1 to 15) until `threads`, a multiple of 32, have come to it or called barArrive. */
SIMT_DEVICE void barSync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
/** Comes to barrier `id` and does not wait. */
SIMT_DEVICE void barArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
#else
namespace emu {
template <class T>  // float, double, int
void butterfly(Fold fold, T* v, int count, int width, Where where);
}  // namespace emu
template <int N, class T>
void warpSum(T (&v)[N], int width = 32, SIMT_WHERE) {
  emu::butterfly(emu::Fold::add, v, N, width, where);
}
template <int N, class T>
void warpMax(T (&v)[N], int width = 32, SIMT_WHERE) {
  emu::butterfly(emu::Fold::max, v, N, width, where);
}
template <class T>
T warpSum(T v, int width = 32, SIMT_WHERE) {
  emu::butterfly(emu::Fold::add, &v, 1, width, where);
  return v;
}
template <class T>
T warpMax(T v, int width = 32, SIMT_WHERE) {
  emu::butterfly(emu::Fold::max, &v, 1, width, where);
  return v;
}
void barSync(int id, int threads, SIMT_WHERE);
void barArrive(int id, int threads, SIMT_WHERE);
#endif

}  // namespace simt
