// 16-bit floating types and packs of elements. Storage types only: arithmetic is float32. Conversions round to nearest
// even and give the canonical NaN 0x7fff, with the same bits under both compilers; tf32 rounds to nearest, ties away.
#pragma once
#include <cstring>
#include <type_traits>

#include "simt/builtins.h"
#ifdef __CUDACC__
#define SIMT_DEVICE __device__ __forceinline__
#define SIMT_BOTH __host__ __device__ __forceinline__
#else
#define SIMT_DEVICE inline
#define SIMT_BOTH inline
#endif

namespace simt {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
/** The lowest 13 bits are zero; names the tensor-core type, kernels hold it as uint32_t. */
struct tf32 {
  uint32_t bits;
};

SIMT_BOTH float asFloat(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}
SIMT_BOTH uint32_t asBits(float value) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

/** x, of which the compiler does not know where it came from. */
SIMT_BOTH float opaque(float x) {
#ifdef __CUDA_ARCH__
  asm("" : "+f"(x));
#endif
  return x;
}

SIMT_BOTH float toFloat(float x) { return x; }
SIMT_BOTH float toFloat(bf16 x) { return asFloat(static_cast<uint32_t>(x.bits) << 16); }
SIMT_BOTH float toFloat(f16 x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#else
  const uint32_t sign = (x.bits & 0x8000u) << 16, rest = (x.bits & 0x7fffu) << 13;
  if (rest >= 0x0f800000u) return asFloat(sign | 0x7f800000u | (rest & 0x7fffffu));
  return asFloat(asBits(asFloat(rest) * 0x1p112f) | sign);  // exact, for values below the normal ones too
#endif
}

template <class T>
SIMT_BOTH T fromFloat(float x);
template <>
SIMT_BOTH float fromFloat<float>(float x) {
  return x;
}
template <>
SIMT_BOTH bf16 fromFloat<bf16>(float x) {
#ifdef __CUDA_ARCH__
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t bits = asBits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
#endif
}
template <>
SIMT_BOTH f16 fromFloat<f16>(float x) {
#ifdef __CUDA_ARCH__
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  const uint32_t bits = asBits(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return {0x7fff};
  if (rest >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  // Below the least normal half, adding 0.5 rounds at the right bit.
  if (rest < 0x38800000u) return {static_cast<uint16_t>(sign | (asBits(asFloat(rest) + 0.5f) - 0x3f000000u))};
  return {static_cast<uint16_t>(sign | ((rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13))};
#endif
}

/** Two values of bf16 or f16 in one register, `low` in bits 0 to 15. */
template <class T>
SIMT_BOTH uint32_t pack2(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t y;
  if constexpr (std::is_same_v<T, bf16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
#else
  return fromFloat<T>(low).bits | static_cast<uint32_t>(fromFloat<T>(high).bits) << 16;
#endif
}
/** The two values of such a register. */
template <class T>
SIMT_BOTH float2 unpack2(uint32_t x) {
  return make_float2(toFloat(T{static_cast<uint16_t>(x)}), toFloat(T{static_cast<uint16_t>(x >> 16)}));
}

SIMT_BOTH uint32_t toTf32(float x) {
#ifdef __CUDA_ARCH__
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
#else
  const uint32_t bits = asBits(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return (bits & 0x7fffffu) ? 0x7fffffffu : bits;
  return (bits + 0x1000u) & ~0x1fffu;
#endif
}

/** N elements that move as one access of up to 16 bytes. */
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0, "an access moves 1, 2, 4, 8 or 16 bytes");
  T v[N];
  SIMT_BOTH T& operator[](int i) { return v[i]; }
  SIMT_BOTH const T& operator[](int i) const { return v[i]; }
};
/** Elements of T in the widest access. */
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

#ifdef __CUDACC__
/** N elements from `at`, which must be a multiple of N * sizeof(T). */
template <int N, class T>
SIMT_DEVICE Pack<T, N> load(const T* at) {
  return *reinterpret_cast<const Pack<T, N>*>(at);
}
template <int N, class T>
SIMT_DEVICE void store(T* at, const Pack<T, N>& value) {
  *reinterpret_cast<Pack<T, N>*>(at) = value;
}
#else
namespace emu {
inline void requireAligned(const void* at, size_t bytes, Where where) {
  if (reinterpret_cast<uintptr_t>(at) & (bytes - 1))
    fault("misaligned access", where, "%zu bytes at %p, which is no multiple of %zu", bytes, at, bytes);
}
}  // namespace emu
template <int N, class T>
inline Pack<T, N> load(const T* at, SIMT_WHERE) {
  emu::requireAligned(at, sizeof(T) * N, where);
  return *reinterpret_cast<const Pack<T, N>*>(at);
}
template <int N, class T>
inline void store(T* at, const Pack<T, N>& value, SIMT_WHERE) {
  emu::requireAligned(at, sizeof(T) * N, where);
  *reinterpret_cast<Pack<T, N>*>(at) = value;
}
#endif

// Approximate functions of the special function unit (about 2 units in the last place; denormals flushed by the
// hardware only). The emulator computes them exactly rounded or nearly so: results differ in the last bits between the
// two.
#ifdef __CUDACC__
SIMT_DEVICE float fastExp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
SIMT_DEVICE float fastReciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
SIMT_DEVICE float fastTanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
inline float fastExp2(float x) { return __builtin_exp2f(x); }
inline float fastReciprocal(float x) { return 1.0f / x; }
inline float fastTanh(float x) { return __builtin_tanhf(x); }
#endif
SIMT_DEVICE float fastExp(float x) { return fastExp2(x * 1.4426950408889634f); }

}  // namespace simt
