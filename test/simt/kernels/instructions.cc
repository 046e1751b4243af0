// Every wrapper against what it should give, exactly.
#include "instructions.h"

#include <cmath>

#include "harness.h"

using namespace harness;

namespace {

void shuffle() {
  constexpr int kThreads = 64;
  const Input<int> in(uniform(kThreads, -1000, 1000, 1));
  Output<int> out(kThreads * 8);
  check(shuffles(in.data(), out.data(), kThreads));
  for (int i = 0; i < kThreads; ++i) {
    const int lane = i % 32, first = i - lane;
    int sum = 0;
    unsigned ballot = 0;
    for (int k = 0; k < 32; ++k) sum += in[first + k], ballot |= static_cast<unsigned>(in[first + k] & 1) << k;
    const int wanted[8] = {in[first + 3],
                           in[first + (lane < 2 ? lane : lane - 2)],
                           in[first + (lane % 16 + 5 < 16 ? lane + 5 : lane)],
                           in[first + (lane ^ 9)],
                           static_cast<int>(ballot),
                           sum,
                           sum,
                           lane < 16 ? in[first] : 2 * in[first + 17]};
    for (int k = 0; k < 8; ++k)
      if (out[i * 8 + k] != wanted[k]) fail("thread %d, column %d: %d instead of %d", i, k, out[i * 8 + k], wanted[k]);
  }
}

void transposed() {
  const int rows = 64, columns = 96;
  const Input<float> in(uniform(rows * columns, -1, 1, 2));
  Output<float> out(rows * columns);
  check(transpose(in.data(), out.data(), rows, columns));
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c)
      if (out[c * rows + r] != in[r * columns + c]) fail("element (%d, %d)", r, c);
}

void namedBarrier() {
  const Input<int> in(uniform(64, 0, 100, 3));
  Output<int> out(64);
  check(named(in.data(), out.data()));
  for (int i = 0; i < 64; ++i) {
    int sum = 0;
    for (int k = 0; k < 32; ++k) sum += in[(1 - i / 32) * 32 + k];
    if (out[i] != sum) fail("thread %d: %d instead of %d", i, out[i], sum);
  }
}

void atomic() {
  const Input<int> sum({0, 0});
  const Input<float> total({0});
  const Input<unsigned> turns({0});
  check(atomics(sum.data(), total.data(), turns.data()));
  if (sum[0] != 7 * 63 * 32 || sum[1] != 63 || total[0] != 224 || turns[0] != 8)
    fail("%d, %d, %g, %u", sum[0], sum[1], static_cast<double>(total[0]), turns[0]);
}

// Every 16-bit value there and back, and the float32 values half-way between them and beside those.
template <class T>
void conversion() {
  std::vector<float> values;
  for (unsigned bits = 0; bits < 0x10000; bits += 3) {
    const float here = simt::toFloat(T{static_cast<uint16_t>(bits)});
    const float next = simt::toFloat(T{static_cast<uint16_t>(bits + 1)});
    const float middle = here + (next - here) / 2;
    for (const float v : {here, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, INFINITY)})
      values.push_back(v);
  }
  const int count = static_cast<int>(values.size() & ~size_t{1});
  Input<float> in(std::vector<double>(count, 0.0));
  for (int i = 0; i < count; ++i) in[i] = values[i];
  Output<T> out(count);
  Output<float> back(count);
  check(convert(in.data(), out.data(), back.data(), count));
  for (int i = 0; i < count; ++i) {
    const double x = in[i], got = simt::toFloat(out[i]);
    if (std::isnan(x)) {
      if (out[i].bits != 0x7fff) fail("NaN became %04x", out[i].bits);
      continue;
    }
    if (static_cast<float>(got) != back[i]) fail("%g back as %g", got, static_cast<double>(back[i]));
    if (!std::isfinite(got)) continue;
    // No neighbour is nearer, and of two equally near ones the even one was taken.
    for (const int step : {-1, 1}) {
      const double other = simt::toFloat(T{static_cast<uint16_t>(out[i].bits + step)});
      const double mine = std::abs(x - got), its = std::abs(x - other);
      if (its < mine || (its == mine && other != got && out[i].bits % 2))
        fail("%.9g became %.9g, not %.9g", x, got, other);
    }
  }
}

template <class T>
void products(int depth) {
  const Input<T> a(uniform(16 * depth, -1, 1, 4)), b(uniform(depth * 32, -1, 1, 5));
  Output<float> c(16 * 32);
  check(product(a.data(), b.data(), c.data(), depth));
  const std::vector<double> x = a.values(), y = b.values();
  std::vector<double> exact(16 * 32);
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 32; ++n)
      for (int k = 0; k < depth; ++k) exact[m * 32 + n] += x[m * depth + k] * y[k * 32 + n];
  expectClose(c.values(), exact, 1e-6, "product");
}

void productInTf32() {
  // Integers up to 2^11 are tf32 values, so the result is exact.
  std::vector<double> x(16 * 8), y(8 * 8), exact(16 * 8, 1.0);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(i * 37 % 101) - 50;
  for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<double>(i * 53 % 97) - 48;
  const Input<float> a(x), b(y);
  Output<float> c(16 * 8);
  check(productTf32(a.data(), b.data(), c.data()));
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n)
      for (int k = 0; k < 8; ++k) exact[m * 8 + n] += x[m * 8 + k] * y[k * 8 + n];
  expectClose(c.values(), exact, 0, "tf32 product");
  if (simt::toTf32(1.0f + 0x1p-11f) != 0x3f802000u) fail("tf32 ties go away from zero");
}

void zeroFill() {
  std::vector<double> values(48);
  for (int i = 0; i < 48; ++i) values[i] = i + 1;
  const Input<char> in(values);
  for (const int valid : {0, 1, 4, 7, 16}) {
    Output<char> out(28);
    check(fill(in.data(), out.data(), valid));
    const int starts[3] = {0, 16, 32}, sizes[3] = {4, 8, 16};
    for (int part = 0, at = 0; part < 3; ++part)
      for (int i = 0; i < sizes[part]; ++i, ++at)
        if (out[at] != (i < valid ? starts[part] + i + 1 : 0)) fail("byte %d with %d valid", at, valid);
  }
}

const Cases cases = {
    {"shuffles, votes and reductions", shuffle},
    {"static shared memory and __syncthreads", transposed},
    {"named barriers", namedBarrier},
    {"atomics", atomic},
    {"bf16 conversions", conversion<bf16>},
    {"f16 conversions", conversion<f16>},
    {"bf16 ldmatrix, cp.async and mma", [] { products<bf16>(80); }},
    {"f16 ldmatrix, cp.async and mma", [] { products<f16>(16); }},
    {"tf32 mma", productInTf32},
    {"cp.async fills with zeros", zeroFill},
};

}  // namespace
