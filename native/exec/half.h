#pragma once
// The two 16-bit floats as values that convert: what files and buffers hold. CPU kernels compute in float32.
#include <cstdint>
#include <cstring>

namespace refl {

inline float floatOf(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline uint32_t bitsOf(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

// Both round to nearest, ties to even; a NaN becomes the canonical quiet one, 0x7fff, as on the GPU.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  explicit BFloat16(float f) {
    const uint32_t b = bitsOf(f);
    bits = f == f ? static_cast<uint16_t>((b + 0x7fff + ((b >> 16) & 1)) >> 16) : 0x7fff;
  }
  operator float() const { return floatOf(uint32_t{bits} << 16); }
};

struct Float16 {
  uint16_t bits;

  Float16() = default;
  explicit Float16(float f) {
    const uint32_t b = bitsOf(f), sign = (b >> 16) & 0x8000u, magnitude = b & 0x7fffffffu;
    uint32_t h;
    if (f != f) {
      bits = 0x7fff;
      return;
    }
    if (magnitude >= 0x477ff000u) {  // from 65520 on, halfway between the largest number and 2^16
      h = 0x7c00u;
    } else if (magnitude < 0x38800000u) {
      // Below 2^-14 it counts in steps of 2^-24: adding 2^-1 leaves those in a float's last bit, rounded to even.
      h = bitsOf(floatOf(magnitude) + 0.5f) - bitsOf(0.5f);
    } else {
      h = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    }
    bits = static_cast<uint16_t>(sign | h);
  }
  operator float() const {
    const uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, mantissa = bits & 0x3ffu;
    if (exponent == 31) return floatOf(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return floatOf(sign | (exponent + 112) << 23 | mantissa << 13);
    const float tiny = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal or zero
    return sign ? -tiny : tiny;
  }
};

}  // namespace refl
