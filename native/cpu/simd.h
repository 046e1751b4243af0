#pragma once
// Vectors as wide as the instruction set's registers, by the compiler's vector extension: arithmetic operators work on
// them lane by lane, and a * b + c becomes one fused multiply-add.
#include <cstdint>

namespace refl::REFL_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T aligned __attribute__((vector_size(kVectorBytes)));
  typedef T anywhere __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::aligned;

// Elements in a vector.
template <class T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::anywhere*>(from);
}
template <class T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::anywhere*>(to) = value;
}

}  // namespace refl::REFL_ISA
