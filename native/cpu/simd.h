#pragma once
// Vectors as wide as the instruction set's registers, by the compiler's vector extension: arithmetic operators work on
// them lane by lane, and a * b + c becomes one fused multiply-add.
#include <cstddef>
#include <cstdint>
#include <utility>

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

// One step of a transposition in registers: of rows i and i + S it swaps the columns with and without bit S.
template <class T, size_t S, size_t... I>
inline void exchange(Vector<T>& a, Vector<T>& b, std::index_sequence<I...>) {
  const Vector<T> low = __builtin_shufflevector(a, b, (I & S ? sizeof...(I) + I - S : I)...);
  b = __builtin_shufflevector(a, b, (I & S ? sizeof...(I) + I : I + S)...);
  a = low;
}

template <class T, size_t S>
inline void exchangeAll(Vector<T>* rows) {
  constexpr size_t W = kLanes<T>;
  if constexpr (S < W) {
#pragma GCC unroll 16
    for (size_t i = 0; i < W; i++) {
      if (!(i & S)) exchange<T, S>(rows[i], rows[i + S], std::make_index_sequence<W>());
    }
    exchangeAll<T, 2 * S>(rows);
  }
}

// Transposes a square of kLanes rows at from + i * ld; column j goes to the vector at to(j).
template <class T, class To>
inline void transposeSquare(const T* from, int64_t ld, To&& to) {
  Vector<T> rows[kLanes<T>];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes<T>; i++) rows[i] = load(from + i * ld);
  exchangeAll<T, 1>(rows);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes<T>; i++) store(to(i), rows[i]);
}

// Element (i, j) of a rows x columns matrix at `from` goes to column(j)[i].
template <class T, class To>
void transpose(int64_t rows, int64_t columns, const T* from, int64_t ld, To&& column) {
  constexpr int64_t W = kLanes<T>;
  const int64_t wholeRows = rows / W * W, wholeColumns = columns / W * W;
  for (int64_t i = 0; i < wholeRows; i += W) {
    for (int64_t j = 0; j < wholeColumns; j += W) {
      transposeSquare(from + i * ld + j, ld, [&](int64_t k) { return column(j + k) + i; });
    }
  }
  for (int64_t j = 0; j < columns; j++) {
    T* to = column(j);
    for (int64_t i = j < wholeColumns ? wholeRows : 0; i < rows; i++) to[i] = from[i * ld + j];
  }
}

}  // namespace refl::REFL_ISA
