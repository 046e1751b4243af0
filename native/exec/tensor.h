#pragma once
// Tensors as native code sees them: a pointer, a dtype and a row-major shape. Nothing here owns memory.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace refl {

enum class DType : uint8_t { f32, f64, i32, u8, bf16, f16 };

constexpr size_t bytesOf(DType t) {
  switch (t) {
    case DType::f64:
      return 8;
    case DType::u8:
      return 1;
    case DType::bf16:
    case DType::f16:
      return 2;
    default:
      return 4;
  }
}

constexpr bool isHalf(DType t) { return t == DType::bf16 || t == DType::f16; }

using Shape = std::vector<int64_t>;

inline int64_t sizeOf(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  int64_t size() const { return sizeOf(shape); }
  size_t bytes() const { return static_cast<size_t>(size()) * bytesOf(dtype); }
  int64_t rank() const { return static_cast<int64_t>(shape.size()); }
  // Axis `i`, counted from the end when negative.
  int64_t dim(int64_t i) const { return shape[static_cast<size_t>(i < 0 ? i + rank() : i)]; }
  explicit operator bool() const { return data != nullptr; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

std::string describe(DType dtype, const Shape& shape);  // "f32[2,3]"

}  // namespace refl
