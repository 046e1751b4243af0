// What CUDA C++ offers without any header. Under nvcc it is there; for g++ these are the emulator's declarations under
// the same names, so that a kernel's source is the same. What is not declared here does not compile under g++, and so
// cannot be used by accident in a kernel that no test could run: __shared__ (see shared.h), inline PTX, __activemask,
// textures.
//
// A default argument `where` is the place of the call, for the reports of deadlocks and faults.
#pragma once
#ifdef __CUDACC__
#include <cuda_runtime.h>

#include <cstdint>
#else
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace simt::emu {

/** A place in the source. */
struct Where {
  const char* file;
  int line;
};
#define SIMT_WHERE simt::emu::Where where = {__builtin_FILE(), __builtin_LINE()}

/** The running thread's coordinates. */
struct Place {
  uint3 thread, block;
  dim3 blockSize, gridSize;
};
extern __thread const Place* here;

/** Ends the launch with a report; the launch returns cudaErrorLaunchFailure. */
[[noreturn]] void fault(const char* kind, Where where, const char* format, ...) __attribute__((format(printf, 3, 4)));

enum class Shuffle { index, up, down, exclusive };
/** Exchanges `value` between the lanes of `mask`. */
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width, Where where);
template <class T>
T shuffled(Shuffle kind, unsigned mask, T value, int operand, int width, Where where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, operand, width, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
enum class Fold { add, min, max, bitAnd, bitOr, bitXor };
unsigned reduce(Fold fold, unsigned mask, unsigned value, bool isSigned, Where where);

}  // namespace simt::emu

#define threadIdx (simt::emu::here->thread)
#define blockIdx (simt::emu::here->block)
#define blockDim (simt::emu::here->blockSize)
#define gridDim (simt::emu::here->gridSize)

// Barriers. __syncwarp orders the memory accesses of its lanes; shuffles and votes order none.
void __syncthreads(SIMT_WHERE);
int __syncthreads_or(int predicate, SIMT_WHERE);
int __syncthreads_count(int predicate, SIMT_WHERE);
void __syncwarp(unsigned mask = 0xffffffffu, SIMT_WHERE);
void __threadfence_block();
void __threadfence();

// Shuffles of 4- and 8-byte values, votes, and sm_80's reductions.
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_WHERE) {
  return simt::emu::shuffled(simt::emu::Shuffle::index, mask, value, lane, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
  return simt::emu::shuffled(simt::emu::Shuffle::up, mask, value, static_cast<int>(delta), width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
  return simt::emu::shuffled(simt::emu::Shuffle::down, mask, value, static_cast<int>(delta), width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_WHERE) {
  return simt::emu::shuffled(simt::emu::Shuffle::exclusive, mask, value, lanes, width, where);
}
unsigned __ballot_sync(unsigned mask, int predicate, SIMT_WHERE);
inline int __any_sync(unsigned mask, int predicate, SIMT_WHERE) { return __ballot_sync(mask, predicate, where) != 0; }
inline int __all_sync(unsigned mask, int predicate, SIMT_WHERE) { return __ballot_sync(mask, !predicate, where) == 0; }
#define SIMT_REDUCE(name, fold)                                                 \
  inline unsigned name(unsigned mask, unsigned value, SIMT_WHERE) {             \
    return simt::emu::reduce(simt::emu::Fold::fold, mask, value, false, where); \
  }
#define SIMT_REDUCE_SIGNED(name, fold)                                                              \
  inline int name(unsigned mask, int value, SIMT_WHERE) {                                           \
    return static_cast<int>(                                                                        \
        simt::emu::reduce(simt::emu::Fold::fold, mask, static_cast<unsigned>(value), true, where)); \
  }
SIMT_REDUCE(__reduce_add_sync, add)
SIMT_REDUCE(__reduce_min_sync, min)
SIMT_REDUCE(__reduce_max_sync, max)
SIMT_REDUCE(__reduce_and_sync, bitAnd)
SIMT_REDUCE(__reduce_or_sync, bitOr)
SIMT_REDUCE(__reduce_xor_sync, bitXor)
SIMT_REDUCE_SIGNED(__reduce_add_sync, add)
SIMT_REDUCE_SIGNED(__reduce_min_sync, min)
SIMT_REDUCE_SIGNED(__reduce_max_sync, max)
#undef SIMT_REDUCE
#undef SIMT_REDUCE_SIGNED

// Atomics on global or shared memory; each returns the old value.
int atomicAdd(int* at, int value, SIMT_WHERE);
unsigned atomicAdd(unsigned* at, unsigned value, SIMT_WHERE);
unsigned long long atomicAdd(unsigned long long* at, unsigned long long value, SIMT_WHERE);
float atomicAdd(float* at, float value, SIMT_WHERE);
double atomicAdd(double* at, double value, SIMT_WHERE);
int atomicMin(int* at, int value, SIMT_WHERE);
unsigned atomicMin(unsigned* at, unsigned value, SIMT_WHERE);
int atomicMax(int* at, int value, SIMT_WHERE);
unsigned atomicMax(unsigned* at, unsigned value, SIMT_WHERE);
unsigned atomicOr(unsigned* at, unsigned value, SIMT_WHERE);
unsigned atomicAnd(unsigned* at, unsigned value, SIMT_WHERE);
/** Counts up to `limit`, then starts at 0 again. */
unsigned atomicInc(unsigned* at, unsigned limit, SIMT_WHERE);
int atomicExch(int* at, int value, SIMT_WHERE);
unsigned atomicExch(unsigned* at, unsigned value, SIMT_WHERE);
float atomicExch(float* at, float value, SIMT_WHERE);
int atomicCAS(int* at, int compare, int value, SIMT_WHERE);
unsigned atomicCAS(unsigned* at, unsigned compare, unsigned value, SIMT_WHERE);
unsigned long long atomicCAS(unsigned long long* at, unsigned long long compare, unsigned long long value, SIMT_WHERE);

// Arithmetic. The _rn forms round once and are never contracted; both compilers run with contraction off all the same.
template <class To, class From>
inline To simtBits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline float __uint_as_float(unsigned bits) { return simtBits<float>(bits); }
inline unsigned __float_as_uint(float value) { return simtBits<unsigned>(value); }
inline float __int_as_float(int bits) { return simtBits<float>(bits); }
inline int __float_as_int(float value) { return simtBits<int>(value); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float rsqrtf(float a) { return 1.0f / __builtin_sqrtf(a); }
inline double rsqrt(double a) { return 1.0 / __builtin_sqrt(a); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __clz(int a) { return a ? __builtin_clz(static_cast<unsigned>(a)) : 32; }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32); }
template <class T>
inline T __ldg(const T* at) {
  return *at;
}
#define SIMT_MIN_MAX(T)                            \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX
inline float min(float a, float b) { return __builtin_fminf(a, b); }
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline double min(double a, double b) { return __builtin_fmin(a, b); }
inline double max(double a, double b) { return __builtin_fmax(a, b); }
#endif
