// Random numbers: Philox against its published vectors and 64-bit arithmetic, and all bits against the CPU's functions.
#include "random/random.h"

#include <array>
#include <cmath>

#include "harness.h"
#define REFL_ISA driver
#include "../../../native/cpu/vecmath.h"

using namespace harness;
namespace vec = refl::REFL_ISA::vec;
using State = std::array<uint32_t, 4>;

namespace {

State philox(State counter, uint32_t k0, uint32_t k1) {
  auto [a, b, c, d] = counter;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = uint64_t{0xD2511F53} * a, q = uint64_t{0xCD9E8D57} * c;
    a = static_cast<uint32_t>(q >> 32) ^ b ^ k0;
    c = static_cast<uint32_t>(p >> 32) ^ d ^ k1;
    b = static_cast<uint32_t>(q);
    d = static_cast<uint32_t>(p);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {a, b, c, d};
}

/** The first `count` numbers as native/cpu/random.cc makes them. */
std::vector<float> expected(const State& state, unsigned count, bool normal) {
  std::vector<float> all;
  for (unsigned i = 0; all.size() < count; ++i) {
    const State words = philox({i, 0, state[2], state[3]}, state[0], state[1]);
    for (int k = 0; k < 4; k += 2) {
      const float first = static_cast<float>(words[k] >> 8) * 0x1p-24f;
      const float second = static_cast<float>(words[k + 1] >> 8) * 0x1p-24f;
      const float radius = std::sqrt(-2.0f * vec::log(static_cast<float>((words[k] >> 8) + 1) * 0x1p-24f));
      const auto quadrant = static_cast<int32_t>(4 * second + 0.5f);
      const float rest = 4 * second - static_cast<float>(quadrant);
      all.push_back(normal ? radius * vec::sinTurn(rest, quadrant + 1) : first);
      all.push_back(normal ? radius * vec::sinTurn(rest, quadrant) : second);
    }
  }
  all.resize(count);
  return all;
}

template <class T>
void same(const State& words, unsigned count, bool normal) {
  const Input<uint32_t> state({words.begin(), words.end()});
  Output<T> y(count);
  check((normal ? refl::cuda::randomNormal<T> : refl::cuda::randomUniform<T>)(state.data(), y.data(), count, nullptr));
  const std::vector<float> wanted = expected(words, count, normal);
  for (unsigned i = 0; i < count; ++i) {
    const T value = simt::fromFloat<T>(wanted[i]);
    if (std::memcmp(&value, &y[i], sizeof value))
      fail("element %u of %u is %.9g and should be %.9g", i, count, simt::toFloat(y[i]), simt::toFloat(value));
  }
}

void published() {
  const State zeros = philox({0, 0, 0, 0}, 0, 0),
              pi = philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0);
  if (zeros != State{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}) fail("another generator, from zeros");
  if (pi != State{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}) fail("another generator, from the digits of pi");
}

template <class T>
void add(const std::string& type) {
  for (const bool normal : {false, true})
    for (const unsigned count : {1u, 2u, 3u, 4u, 7u, 1024u, 5003u})
      addCase(type + (normal ? " normal, " : " uniform, ") + std::to_string(count), [=] {
        same<T>({17, 0xfffffffd, 5, 9}, count, normal);
        same<T>({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, count, normal);
      });
}

const bool added = [] {
  addCase("the published vectors", published);
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  return true;
}();

}  // namespace
