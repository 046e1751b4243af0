// What activations and their gradients compute of one element of T, in float32. In the 16-bit types they use the
// approximate exponential and reciprocal, whose errors are far below the types' rounding.
#pragma once
#include "simt/simt.h"

namespace refl::cuda {

template <class T>
__device__ __forceinline__ float exponential(float x) {
  return sizeof(T) == 2 ? simt::fastExp(x) : expf(x);
}
template <class T>
__device__ __forceinline__ float inverse(float x) {
  return sizeof(T) == 2 ? simt::fastReciprocal(x) : 1.0f / x;
}

template <class T>
__device__ __forceinline__ float sigmoid(float x) {
  return inverse<T>(1.0f + exponential<T>(-x));
}

/** d(x sigmoid(k x)) / dx = s + k x s (1 - s). */
template <class T>
__device__ __forceinline__ float gatedSlope(float x, float k) {
  const float s = sigmoid<T>(k * x);
  return fmaf(k * x * s, 1.0f - s, s);
}

/** c0 + x (c1 + x (c2 + ...)). */
__device__ __forceinline__ float poly(float, float c) { return c; }
template <class... Rest>
__device__ __forceinline__ float poly(float x, float c0, Rest... rest) {
  return fmaf(x, poly(x, rest...), c0);
}

/** The normal distribution function at x, and its density. */
struct NormalAt {
  float cdf, pdf;
};

/** As native/cpu/vecmath.h has it: the density times a polynomial is the upper tail, so the relative error of small
 * values is small as well. */
template <class T>
__device__ __forceinline__ NormalAt normal(float x) {
  const float t = fabsf(x), square = t * t;
  float density = exponential<T>(-0.5f * square);
  if constexpr (sizeof(T) == 4) {
    // The rounding error of t^2, carried along: it would be t^2 / 2 times an ulp. Where the square overflows it is no
    // number, but the density is 0.
    const float low = fmaf(t, t, -square);
    density = density == 0.0f ? 0.0f : fmaf(density * -0.5f, low, density);
  }
  const float s = inverse<T>(fmaf(0.3f, t, 1.0f));
  // Upper tail over (density sqrt(2 pi) s): 3.5e-9.
  const float p = poly(s, 1.196866354e-01f, 1.195728160e-01f, 1.102275379e-01f, 7.842456498e-02f, 9.606079986e-02f,
                       -7.925292131e-02f, 1.915884438e-01f, -2.280725918e-01f, 1.123779412e-01f, -2.061322767e-02f);
  const float tail = density * (s * p);
  return {x > 0.0f ? 1.0f - tail : tail, density * 0.398942280f};
}

}  // namespace refl::cuda
