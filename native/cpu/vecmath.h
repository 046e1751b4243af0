#pragma once
// Elementary functions that compilers turn into vector code: no branches, no calls, no tables. The float versions
// are good to 2.5 units in the last place (the lower tail of the normal distribution to 6); the double versions are
// the C library's, for the oracle.
//
// In exp, log and sinTurn every multiply-add is an explicit fma, and no other inexact product feeds a sum. So a
// compiler's freedom to contract changes nothing, and their float results are the same bits on every machine with
// IEEE arithmetic: random.cc rests on that. The polynomials are near-minimax fits made for this file (weighted least
// squares on Chebyshev nodes); their relative errors stand beside them.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define REFL_INLINE inline __attribute__((always_inline))

namespace refl::REFL_ISA::vec {

template <class To, class From>
REFL_INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// c0 + x (c1 + x (c2 + ...)).
template <class T>
REFL_INLINE T poly(T, T c) {
  return c;
}
template <class T, class... Rest>
REFL_INLINE T poly(T x, T c0, Rest... rest) {
  return std::fma(x, poly(x, rest...), c0);
}

// Adding this rounds a float under 2^22 to a whole number, which then stands in the sum's low bits.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23

REFL_INLINE float exp(float x) {
  // 89 and -104 lie past the ends of the range (infinity and 0); a NaN fails both tests and stays.
  x = x > 89.0f ? 89.0f : x < -104.0f ? -104.0f : x;
  const float t = std::fma(x, 1.44269504f, kRound);
  const float n = t - kRound;
  float r = std::fma(n, -0.693147182f, x);
  r = std::fma(n, 1.90465421e-9f, r);  // ln 2 minus its float, negated
  // (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2: 3.1e-9 relative to e^r.
  const float p = poly(r, 4.999999345e-01f, 1.666652068e-01f, 4.166838754e-02f, 8.368710656e-03f, 1.381460452e-03f);
  const float e = 1.0f + std::fma(r * r, p, r);
  // 2^n as two factors, so that results reach 2^128 - 1 ulp and the denormals without a detour over infinity or 0.
  const int32_t whole = bits<int32_t>(t) - bits<int32_t>(kRound);
  const int32_t half = whole >> 1;
  const auto power = [](int32_t k) { return bits<float>(static_cast<uint32_t>(k + 127) << 23); };
  return e * power(half) * power(whole - half);
}
REFL_INLINE double exp(double x) { return std::exp(x); }

REFL_INLINE float log(float x) {
  const bool tiny = x < std::numeric_limits<float>::min();
  const uint32_t b = bits<uint32_t>(tiny ? x * 8388608.0f : x);
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)).
  const int32_t exponent = static_cast<int32_t>(b - 0x3f3504f3u) >> 23;
  const float f = bits<float>(b - (static_cast<uint32_t>(exponent) << 23)) - 1.0f;
  const float e = static_cast<float>(exponent - (tiny ? 23 : 0));
  // (log(1 + f) - f + f^2 / 2) / f^3: 5.8e-9 relative to log(1 + f).
  const float p = poly(f, 3.333333172e-01f, -2.500082112e-01f, 2.000122602e-01f, -1.662335384e-01f, 1.420177622e-01f,
                       -1.316023377e-01f, 1.276146817e-01f, -7.634225462e-02f);
  const float square = f * f;
  float y = std::fma(f * square, p, e * -1.90465421e-9f);
  y = std::fma(-0.5f, square, y);
  y = std::fma(e, 0.693147182f, f + y);
  constexpr float inf = std::numeric_limits<float>::infinity();
  y = x == inf ? inf : y;
  y = x == 0.0f ? -inf : y;
  return x >= 0.0f ? y : std::numeric_limits<float>::quiet_NaN();
}
REFL_INLINE double log(double x) { return std::log(x); }

// sin and cos of f quarter turns, |f| <= 1/2.
REFL_INLINE float sinQuarter(float f) {
  return f * poly(f * f, 1.570796322e+00f, -6.459634602e-01f, 7.968003276e-02f, -4.601657857e-03f);  // 3.2e-9
}
REFL_INLINE float cosQuarter(float f) {
  return poly(f * f, 1.000000000e+00f, -1.233700541e+00f, 2.536692039e-01f, -2.086007132e-02f,
              9.036316967e-04f);  // 4.7e-11
}

// Sine of (f + quadrant) quarter turns; one quadrant more gives the cosine.
REFL_INLINE float sinTurn(float f, int32_t quadrant) {
  const float s = (quadrant & 1) != 0 ? cosQuarter(f) : sinQuarter(f);
  return (quadrant & 2) != 0 ? -s : s;
}

// Reduced in double, which keeps all bits of a float up to 2^45 or so; past that, as x itself says ever less.
REFL_INLINE float sinPlus(float x, int32_t quadrants) {
  constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  const double t = std::fma(static_cast<double>(x), 0.63661977236758134, round);
  const double n = t - round;
  double r = std::fma(n, -1.5707963267948966, static_cast<double>(x));
  r = std::fma(n, -6.123233995736766e-17, r);
  float f = static_cast<float>(r * 0.63661977236758134);
  f = f > 0.5f ? 0.5f : f < -0.5f ? -0.5f : f;
  return sinTurn(f, static_cast<int32_t>(bits<int64_t>(t)) + quadrants);
}
REFL_INLINE float sin(float x) { return sinPlus(x, 0); }
REFL_INLINE float cos(float x) { return sinPlus(x, 1); }
REFL_INLINE double sin(double x) { return std::sin(x); }
REFL_INLINE double cos(double x) { return std::cos(x); }

template <class T>
REFL_INLINE T sigmoid(T x) {
  return T(1) / (T(1) + exp(-x));
}

REFL_INLINE float tanh(float x) {
  const float z = x * x;
  // (tanh(x) / x - 1) / x^2 on |x| <= 0.62: 4.4e-9 relative to tanh(x).
  const float p = poly(z, -3.333328231e-01f, 1.333145287e-01f, -5.374065797e-02f, 2.064231789e-02f, -5.708756188e-03f);
  const float small = std::fma(x * z, p, x);
  const float large = 1.0f - 2.0f / (exp(2.0f * std::fabs(x)) + 1.0f);
  return std::fabs(x) < 0.62f ? small : std::copysign(large, x);
}
REFL_INLINE double tanh(double x) { return std::tanh(x); }

// The normal distribution function at x, and its density.
template <class T>
struct Normal {
  T cdf, pdf;
};

REFL_INLINE Normal<float> normal(float x) {
  const float t = std::fabs(x);
  const float square = t * t;
  // exp(-t^2 / 2) with the rounding error of t^2 carried along, which would be t^2 / 2 times an ulp.
  const float low = std::fma(t, t, -square);
  const float main = exp(-0.5f * square);
  // Where the square overflows, `low` is not a number but the density is 0.
  const float density = main == 0.0f ? 0.0f : std::fma(main * -0.5f, low, main);
  const float s = 1.0f / std::fma(0.3f, t, 1.0f);
  // Upper tail over (density sqrt(2 pi) s): 3.5e-9.
  const float p = poly(s, 1.196866354e-01f, 1.195728160e-01f, 1.102275379e-01f, 7.842456498e-02f, 9.606079986e-02f,
                       -7.925292131e-02f, 1.915884438e-01f, -2.280725918e-01f, 1.123779412e-01f, -2.061322767e-02f);
  const float tail = density * (s * p);
  return {x > 0.0f ? 1.0f - tail : tail, density * 0.398942280f};
}
REFL_INLINE Normal<double> normal(double x) {
  return {0.5 * std::erfc(x * -0.70710678118654752), std::exp(-0.5 * x * x) * 0.39894228040143268};
}

}  // namespace refl::REFL_ISA::vec
