#pragma once
// Packed weights that are kept in 16 bits: half the memory of float ones. Products widen them block by block into the
// copy of B that gemmRegion has in its cache, so each costs one conversion for all rows of a region, and sums are the
// same as those of float weights rounded beforehand.
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include <type_traits>

#include "cpu/gemm.h"
#include "exec/half.h"

namespace refl::REFL_ISA {

inline void widen(const BFloat16* from, int64_t count, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = from[i];
}

inline void widen(const Float16* from, int64_t count, float* to) {
  int64_t i = 0;
#if defined(__F16C__)  // GCC 12 makes single conversions of a loop
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
  for (; i < count; i++) to[i] = from[i];
}

template <class S>
void narrow(const float* from, int64_t count, S* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = S(from[i]);
}

// Has `pack` write `count` elements of a packed copy: where they are kept, or into `room` and from there narrowed.
template <class T, class S, class Fn>
void keep(S* to, int64_t count, T* room, Fn&& pack) {
  if constexpr (std::is_same_v<T, S>) {
    pack(to);
  } else {
    pack(room);
    narrow(room, count, to);
  }
}

// A B that was packed as a whole and kept as S, for gemmRegion.
template <class T, class S>
auto kept(const S* data, int64_t whole) {
  if constexpr (std::is_same_v<T, S>) {
    return Packed<T>{data, whole};
  } else {
    return [=](int64_t column, int64_t columns, int64_t k, int64_t depth, T* to) {
      panels<T>(columns, [&](int64_t j, int64_t, int64_t width) {
        widen(data + (column + j) * whole + k * width, width * depth, to + j * depth);
      });
    };
  }
}

// Calls fn with a value of the C++ type that packed copies of a float `weight` keep.
template <class Fn>
auto onKept(const Operand& weight, Fn&& fn) {
  if (weight.frozen && weight.buffer->packed == DType::bf16) return fn(BFloat16{});
  if (weight.frozen && weight.buffer->packed == DType::f16) return fn(Float16{});
  return fn(float{});
}

// As onFloat, with a value of what packed copies of `weight` keep besides.
template <class Fn>
auto onKept(DType dtype, const Operand& weight, const NodeSpec& node, Fn&& fn) {
  if (dtype == DType::f32) return onKept(weight, [&](auto stored) { return fn(float{}, stored); });
  return onFloat(dtype, node, [&](auto tag) { return fn(tag, tag); });
}

}  // namespace refl::REFL_ISA
