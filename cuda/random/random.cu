// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) and Box-Muller on its words.
//
// A thread has one counter and so four elements: 10 rounds of two 32 x 32 -> 64 bit products, about 80 integer
// operations, and for normals 60 more in float32; it writes 16 bytes (8 in the 16-bit types) and reads the four words
// of the state. Element i depends on the state and i alone.
//
// The numbers are the CPU's bit for bit: log and sinTurn are those of native/cpu/vecmath.h, whose every multiply-add is
// an explicit fma, and the square root is rounded correctly. A change of one is a change of both.
#include "random/random.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;
constexpr float kUlp = 0x1p-24f;

/** c0 + x (c1 + x (c2 + ...)). */
__device__ __forceinline__ float poly(float, float c) { return c; }
template <class... Rest>
__device__ __forceinline__ float poly(float x, float c0, Rest... rest) {
  return fmaf(x, poly(x, rest...), c0);
}

/** Natural logarithm of x in [2^-24, 1]: vecmath.h's for normal numbers. */
__device__ __forceinline__ float logOf(float x) {
  const uint32_t bits = asBits(x);
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)).
  const int exponent = static_cast<int>(bits - 0x3f3504f3u) >> 23;
  const float f = asFloat(bits - (static_cast<uint32_t>(exponent) << 23)) - 1.0f;
  const float e = static_cast<float>(exponent);
  const float p = poly(f, 3.333333172e-01f, -2.500082112e-01f, 2.000122602e-01f, -1.662335384e-01f, 1.420177622e-01f,
                       -1.316023377e-01f, 1.276146817e-01f, -7.634225462e-02f);
  const float square = f * f;
  float y = fmaf(f * square, p, e * -1.90465421e-9f);
  y = fmaf(-0.5f, square, y);
  return fmaf(e, 0.693147182f, f + y);
}

/** Sine of (f + quadrant) quarter turns, |f| <= 1/2. */
__device__ __forceinline__ float sinTurn(float f, int quadrant) {
  const float square = f * f;
  const float sine = f * poly(square, 1.570796322e+00f, -6.459634602e-01f, 7.968003276e-02f, -4.601657857e-03f);
  const float cosine =
      poly(square, 1.000000000e+00f, -1.233700541e+00f, 2.536692039e-01f, -2.086007132e-02f, 9.036316967e-04f);
  const float s = quadrant & 1 ? cosine : sine;
  return quadrant & 2 ? -s : s;
}

struct Uniform {
  __device__ static void draw(const uint32_t (&words)[4], float (&y)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) y[i] = static_cast<float>(words[i] >> 8) * kUlp;
  }
};

struct Normal {
  __device__ static void draw(const uint32_t (&words)[4], float (&y)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      // (0, 1], so that the logarithm is finite.
      const float radius = sqrtf(-2.0f * logOf(static_cast<float>((words[i] >> 8) + 1) * kUlp));
      // The angle in quarter turns: the nearest whole number, and what is left in [-1/2, 1/2]; both exact.
      const float quarters = static_cast<float>(words[i + 1] >> 8) * (4 * kUlp);
      const int quadrant = static_cast<int>(quarters + 0.5f);
      const float rest = quarters - static_cast<float>(quadrant);
      y[i] = radius * sinTurn(rest, quadrant + 1);
      y[i + 1] = radius * sinTurn(rest, quadrant);
    }
  }
};

template <class Distribution, class T>
__global__ void __launch_bounds__(kThreads)
    randomKernel(const uint32_t* __restrict__ state, T* __restrict__ y, unsigned count) {
  const unsigned counter = blockIdx.x * kThreads + threadIdx.x, at = counter * 4;
  uint32_t k0 = state[0], k1 = state[1];
  uint32_t words[4] = {counter, 0, state[2], state[3]};
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t low0 = 0xD2511F53u * words[0], high0 = __umulhi(0xD2511F53u, words[0]);
    const uint32_t low2 = 0xCD9E8D57u * words[2], high2 = __umulhi(0xCD9E8D57u, words[2]);
    words[0] = high2 ^ words[1] ^ k0;
    words[1] = low2;
    words[2] = high0 ^ words[3] ^ k1;
    words[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  float numbers[4];
  Distribution::draw(words, numbers);
  if (at + 4 <= count) {
    store(y + at, Pack<T, 4>{{fromFloat<T>(numbers[0]), fromFloat<T>(numbers[1]), fromFloat<T>(numbers[2]),
                              fromFloat<T>(numbers[3])}});
  } else {
#pragma unroll
    for (unsigned i = 0; i < 3; ++i)
      if (at + i < count) y[at + i] = fromFloat<T>(numbers[i]);
  }
}

template <class Distribution, class T>
cudaError_t draw(const uint32_t* state, T* y, unsigned count, cudaStream_t stream) {
  constexpr unsigned kPerBlock = kThreads * 4;
  return launch<randomKernel<Distribution, T>>({(count + kPerBlock - 1) / kPerBlock, kThreads, 0, stream}, state, y,
                                               count);
}

}  // namespace

template <class T>
cudaError_t randomUniform(const uint32_t* state, T* y, unsigned count, cudaStream_t stream) {
  return draw<Uniform>(state, y, count, stream);
}
template <class T>
cudaError_t randomNormal(const uint32_t* state, T* y, unsigned count, cudaStream_t stream) {
  return draw<Normal>(state, y, count, stream);
}

#define REFL_RANDOM(T)                                                             \
  template cudaError_t randomUniform(const uint32_t*, T*, unsigned, cudaStream_t); \
  template cudaError_t randomNormal(const uint32_t*, T*, unsigned, cudaStream_t);
REFL_RANDOM(float)
REFL_RANDOM(bf16)
REFL_RANDOM(f16)

}  // namespace refl::cuda
