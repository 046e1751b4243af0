// Uniform and normal numbers from Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011):
// a keyed bijection of a 128-bit counter, so that element i depends on nothing but the state and i.
//
// Threads split the counters; 16 of them run side by side in vector lanes, 10 rounds of two 32x32->64 multiplications
// each. Normals come from Box-Muller on neighbouring words with the float32 log and sine of vecmath.h, which are
// explicit fmas: every backend gives the same bits, and float64 output is the float32 value widened.
#include "cpu/support.h"
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {

namespace {

constexpr int64_t kLanes = 16;         // counters a tile
constexpr int64_t kTile = 4 * kLanes;  // words a tile

struct State {
  uint32_t key0, key1, stream, offset;
};

// The 64 words of counters first .. first + 15, in the order of the elements.
void philox(const State& state, uint64_t first, uint32_t* words) {
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int64_t i = 0; i < kLanes; i++) {
    const uint64_t counter = first + static_cast<uint64_t>(i);
    c0[i] = static_cast<uint32_t>(counter);
    c1[i] = static_cast<uint32_t>(counter >> 32);
    c2[i] = state.stream;
    c3[i] = state.offset;
  }
  uint32_t k0 = state.key0, k1 = state.key1;
  for (int round = 0; round < 10; round++) {
#pragma omp simd
    for (int64_t i = 0; i < kLanes; i++) {
      const uint64_t a = uint64_t{0xD2511F53} * c0[i], b = uint64_t{0xCD9E8D57} * c2[i];
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(b);
      c3[i] = static_cast<uint32_t>(a);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (int64_t i = 0; i < kLanes; i++) {
    words[4 * i] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
}

constexpr float kUlp = 5.9604644775390625e-8f;  // 2^-24

struct Uniform {
  static void tile(const uint32_t* words, float* y) {
#pragma omp simd
    for (int64_t i = 0; i < kTile; i++) y[i] = static_cast<float>(words[i] >> 8) * kUlp;
  }
};

struct Normal {
  static void tile(const uint32_t* words, float* y) {
#pragma omp simd
    for (int64_t i = 0; i < kTile; i += 2) {
      // (0, 1], so that the logarithm is finite: |y| < 5.77.
      const float u = static_cast<float>((words[i] >> 8) + 1) * kUlp;
      const float radius = std::sqrt(-2.0f * vec::log(u));
      // The angle in quarter turns: the nearest whole number, and what is left in [-1/2, 1/2]; both exact.
      const float quarters = static_cast<float>(words[i + 1] >> 8) * (4 * kUlp);
      const auto quadrant = static_cast<int32_t>(quarters + 0.5f);
      const float rest = quarters - static_cast<float>(quadrant);
      y[i] = radius * vec::sinTurn(rest, quadrant + 1);
      y[i + 1] = radius * vec::sinTurn(rest, quadrant);
    }
  }
};

template <class Distribution>
Bound bindRandom(const NodeSpec& node) {
  const int64_t n = node.outputs[0].size(), tiles = (n + kTile - 1) / kTile;
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [n, tiles](const Args& args) {
      const auto* s = args.in[0].as<uint32_t>();
      const State state{s[0], s[1], s[2], s[3]};
      parallelFor(tiles, 64, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
          uint32_t words[kTile];
          float values[kTile];
          philox(state, static_cast<uint64_t>(t * kLanes), words);
          Distribution::tile(words, values);
          std::copy(values, values + std::min(kTile, n - t * kTile), args.out[0].as<T>() + t * kTile);
        }
      });
    };
    return {run, 0};
  });
}

}  // namespace

Bound bindRandomUniform(const NodeSpec& node) { return bindRandom<Uniform>(node); }
Bound bindRandomNormal(const NodeSpec& node) { return bindRandom<Normal>(node); }

}  // namespace refl::REFL_ISA
