// Elementwise operators against float64, element by element: values of every kind, every form of broadcasting, results
// over an operand's memory, casts and fills.
#include "elementwise/elementwise.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <memory>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

double exact(Neg, double x) { return -x; }
double exact(Sqrt, double x) { return std::sqrt(x); }
double exact(Rsqrt, double x) { return 1 / std::sqrt(x); }
double exact(Reciprocal, double x) { return 1 / x; }
double exact(Square, double x) { return x * x; }
double exact(Abs, double x) { return std::fabs(x); }
double exact(Sign, double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
double exact(Exp, double x) { return std::exp(x); }
double exact(Log, double x) { return std::log(x); }
double exact(Sin, double x) { return std::sin(x); }
double exact(Cos, double x) { return std::cos(x); }
double exact(Tanh, double x) { return std::tanh(x); }
double exact(Sigmoid, double x) { return 1 / (1 + std::exp(-x)); }
double exact(Power op, double x) { return std::pow(x, op.exponent); }
double exact(Affine op, double x) { return op.scale * x + op.shift; }
double exact(Clamp op, double x) { return x < op.low ? op.low : x > op.high ? op.high : x; }
double exact(ClampGrad op, double x, double dy) { return x >= op.low && x <= op.high ? dy : 0; }
double exact(Relu, double x) { return x < 0 ? 0 : x; }
double exact(LeakyRelu op, double x) { return x > 0 ? x : op.slope * x; }
double exact(LeakyReluGrad op, double x, double dy) { return x > 0 ? dy : op.slope * dy; }
double exact(Add, double a, double b) { return a + b; }
double exact(Sub, double a, double b) { return a - b; }
double exact(Mul, double a, double b) { return a * b; }
double exact(Div, double a, double b) { return a / b; }
double exact(Maximum, double a, double b) { return a >= b || a != a ? a : b; }
double exact(Minimum, double a, double b) { return a <= b || a != a ? a : b; }
double exact(Greater, double a, double b) { return a > b; }
double exact(GreaterEqual, double a, double b) { return a >= b; }
double exact(Equal, double a, double b) { return a == b; }
double exact(Where, double c, double a, double b) { return c != 0 ? a : b; }

/** Each value within 1e-5 of the exact one in float32, within 1.01 roundings in 16 bits; NaN, infinities and the signs
 * of zeros as they should be. */
template <class T>
void expectEach(const Values& actual, const Values& wanted, const char* what) {
  const double unit = std::is_same_v<T, float> ? 1e-5 : std::is_same_v<T, bf16> ? 0x1.03p-8 : 0x1.03p-11;
  const double least = std::is_same_v<T, f16> ? 0x1p-24 : 0x1p-126;  // what becomes 0 next to it
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double a = actual[i], e = wanted[i];
    const bool fine = std::isnan(e)               ? std::isnan(a)
                      : e == 0                    ? a == 0 && std::signbit(a) == std::signbit(e)
                      : std::isinf(rounded<T>(e)) ? a == rounded<T>(e)
                                                  : std::abs(a - e) <= unit * std::abs(e) + least;
    if (!fine) fail("%s: element %zu is %.9g and should be %.9g", what, i, a, e);
  }
}

/** Values of every kind, then `count` in the range of the operator. */
template <class T>
Values mixed(size_t count, double low, double high, uint64_t seed) {
  Values all = {0.0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 3e4, -3e4, 1e-3, -1e-3, 0.5, -0.5, 2, -2};
  for (const double v : uniform(count, low, high, seed)) all.push_back(v);
  for (double& v : all) v = rounded<T>(v);
  return all;
}

template <class Op, class T>
void flat(const Op& op, size_t more, double low, double high) {
  constexpr int K = Op::kInputs;
  std::vector<Values> values;
  std::vector<std::unique_ptr<Input<T>>> inputs;
  Inputs<T, K> in = {};
  for (int k = 0; k < K; ++k) {
    values.push_back(mixed<T>(more, low, high, 61 + k));
    // Each kind of value meets each other.
    if (k == 1) std::rotate(values[1].begin(), values[1].begin() + more % 15, values[1].begin() + 15);
    inputs.push_back(std::make_unique<Input<T>>(values[k]));
    in.at[k] = inputs[k]->data();
  }
  const auto count = static_cast<unsigned>(values[0].size());
  Values wanted(count);
  for (unsigned i = 0; i < count; ++i) {
    if constexpr (K == 1)
      wanted[i] = exact(op, values[0][i]);
    else
      wanted[i] = exact(op, values[0][i], values[1][i]);
  }
  Output<T> y(count);
  check(map(op, in, y.data(), count, nullptr));
  expectEach<T>(y.values(), wanted, "y");
  T* over = inputs[K - 1]->data();
  check(map(op, in, over, count, nullptr));
  expectEach<T>(inputs[K - 1]->values(), wanted, "over the last operand");
}

using Shape = std::vector<int64_t>;

size_t sizeOf(const Shape& shape) {
  size_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

/** Where element `at` of `out` lies in an operand of `shape`. */
size_t placeOf(size_t at, const Shape& out, const Shape& shape) {
  size_t place = 0, size = 1;
  for (size_t back = 1; back <= out.size(); ++back) {
    const size_t index = at % out[out.size() - back];
    at /= out[out.size() - back];
    if (back > shape.size()) continue;
    const size_t extent = shape[shape.size() - back];
    if (extent > 1) place += index * size;
    size *= extent;
  }
  return place;
}

/** `over`: the operand whose memory the result takes, or -1. */
template <class Op, class T>
void spread(const Op& op, const Shape& out, const std::vector<Shape>& shapes, int over = -1) {
  constexpr int K = Op::kInputs;
  std::vector<Values> values;
  std::vector<std::unique_ptr<Input<T>>> inputs;
  const T* in[K];
  std::vector<int64_t> operands[K];
  for (int k = 0; k < K; ++k) {
    const size_t size = sizeOf(shapes[k]);
    Values all = mixed<T>(size, -2, 2, 71 + k);
    all.erase(all.begin(), all.end() - size);
    // Ties, and both sides of a condition.
    for (size_t i = k; i < size; i += 3) all[i] = i % 2;
    values.push_back(all);
    inputs.push_back(std::make_unique<Input<T>>(all));
    in[k] = inputs[k]->data();
    operands[k] = shapes[k];
  }
  Layout<K> layout;
  if (!broadcast(out, operands, layout)) fail("too many axes");
  Values wanted(sizeOf(out));
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto of = [&](int k) { return values[k][placeOf(i, out, shapes[k])]; };
    if constexpr (K == 2)
      wanted[i] = exact(op, of(0), of(1));
    else
      wanted[i] = exact(op, of(0), of(1), of(2));
  }
  if (over >= 0) {
    check(mapBroadcast(op, layout, in, inputs[over]->data(), nullptr));
    return expectEach<T>(inputs[over]->values(), wanted, "in place");
  }
  Output<T> y(wanted.size());
  check(mapBroadcast(op, layout, in, y.data(), nullptr));
  expectEach<T>(y.values(), wanted, "y");
}

template <class To>
double castOf(double x) {
  if constexpr (std::is_integral_v<To>) {
    using Limits = std::numeric_limits<To>;
    if (std::isnan(x)) return 0;
    return std::trunc(std::min<double>(std::max<double>(x, Limits::min()), Limits::max())) + 0.0;  // -0 has no sign
  } else {
    return rounded<To>(x);
  }
}

template <class From, class To>
void castAll(size_t more) {
  Values x = {0, 1, 127, 128, 254, 255};
  if (!std::is_same_v<From, uint8_t>)
    for (const double v : {-1, 256, 300, -300, 70000, -70000, INT_MIN, INT_MAX, INT_MAX - 1, 16777217}) x.push_back(v);
  if (!std::is_integral_v<From>)
    for (const double v : {-0.0, -0.99, 0.99, 254.9, 255.5, 0x1p31, -0x1p31, 0x1.8p31, -0x1.8p31, 2147483520.0, 1e12,
                           -1e12, 65519.0, 65520.0, 1e-7, 3e-8, double(INFINITY), double(-INFINITY), double(NAN)})
      x.push_back(v);
  for (const double v : uniform(more, 0, 255, 81)) x.push_back(std::is_integral_v<From> ? std::trunc(v) : v);
  const Input<From> from(x);
  Output<To> to(x.size());
  check(castElements(from.data(), to.data(), static_cast<unsigned>(x.size()), nullptr));
  const Values read = from.values(), got = to.values();
  for (size_t i = 0; i < x.size(); ++i) {
    const double e = castOf<To>(read[i]), a = got[i];
    if (!(a == e || (std::isnan(a) && std::isnan(e))) || std::signbit(a) != std::signbit(std::isnan(e) ? a : e))
      fail("%.9g became %.9g and should be %.9g", read[i], a, e);
  }
}

void fillAll() {
  for (const size_t bytes : {1, 2, 3, 15, 16, 17, 31, 4095, 4096, 4099}) {
    Output<uint8_t> y(bytes);
    for (size_t i = 0; i < bytes; ++i) y[i] = 0x77;
    check(fill(0x04030201, y.data(), bytes, nullptr));
    for (size_t i = 0; i < bytes; ++i)
      if (y[i] != i % 4 + 1) fail("byte %zu of %zu is %d", i, bytes, y[i]);
  }
}

template <class Fn>
void addTypes(const std::string& name, Fn fn) {
  addCase("f32 " + name, [=] { fn(float()); });
  addCase("bf16 " + name, [=] { fn(bf16()); });
  addCase("f16 " + name, [=] { fn(f16()); });
}

/** 1 element over two vectors, and a size beyond a block whose last vector is short. */
template <class Op>
void addMap(const std::string& name, const Op& op, double low = -3, double high = 3) {
  addTypes(name, [=](auto tag) {
    using T = decltype(tag);
    flat<Op, T>(op, 2, low, high);
    flat<Op, T>(op, 256 * simt::kPack<T>, low, high);
  });
}

template <class Op>
void addBinary(const std::string& name, const Op& op) {
  addTypes(name, [=](auto tag) {
    using T = decltype(tag);
    spread<Op, T>(op, {3, 37}, {{3, 37}, {3, 37}});
    spread<Op, T>(op, {5, 24}, {{5, 24}, {24}});
    spread<Op, T>(op, {5, 13}, {{13}, {5, 1}});
  });
  addTypes(name + ", values of every kind", [=](auto tag) {
    using T = decltype(tag);
    const Values kinds = mixed<T>(0, 0, 1, 0);
    const size_t n = kinds.size();
    Values a, b, wanted;
    for (const double x : kinds)
      for (const double y : kinds) {
        a.push_back(x);
        b.push_back(y);
        wanted.push_back(exact(op, x, y));
      }
    const Input<T> left(a), right(b);
    Output<T> y(n * n);
    Layout<2> layout;
    const Shape both[2] = {{int64_t(n * n)}, {int64_t(n * n)}};
    broadcast(both[0], both, layout);
    check(mapBroadcast(op, layout, {left.data(), right.data()}, y.data(), nullptr));
    expectEach<T>(y.values(), wanted, "y");
  });
}

const bool added = [] {
  addMap("neg", Neg());
  addMap("sqrt", Sqrt(), 0, 9);
  addMap("rsqrt", Rsqrt(), 0.1, 9);
  addMap("reciprocal", Reciprocal());
  addMap("square", Square());
  addMap("abs", Abs());
  addMap("sign", Sign());
  addMap("exp", Exp(), -100, 80);
  addMap("log", Log(), 0, 9);
  addMap("sin", Sin(), -30, 30);
  addMap("cos", Cos(), -30, 30);
  addMap("tanh", Tanh());
  addMap("sigmoid", Sigmoid(), -20, 20);
  addMap("power", Power{{}, 2.5f}, 0, 3);
  addMap("power of negative values", Power{{}, -3}, -3, 3);
  addMap("affine", Affine{{}, -1.75f, 0.25f});
  addMap("clamp", Clamp{{}, -0.5f, 1.25f});
  addMap("clamp to zeros", Clamp{{}, 0.0f, 1}, -1, 1);
  addMap("clamp to a negative zero", Clamp{{}, -1, -0.0f}, -1, 1);
  addMap("clampGrad", ClampGrad{{}, -0.5f, 2});
  addMap("relu", Relu());
  addMap("leakyRelu", LeakyRelu{{}, 0.25f});
  addMap("leakyRelu with a negative slope", LeakyRelu{{}, -0.25f});
  addMap("leakyReluGrad", LeakyReluGrad{{}, 0.25f});
  addBinary("add", Add());
  addBinary("sub", Sub());
  addBinary("mul", Mul());
  addBinary("div", Div());
  addBinary("maximum", Maximum());
  addBinary("minimum", Minimum());
  addBinary("greater", Greater());
  addBinary("greaterEqual", GreaterEqual());
  addBinary("equal", Equal());

  const struct {
    const char* name;
    Shape out, a, b;
  } layouts[] = {
      {"one element", {1, 1}, {}, {1, 1}},
      {"a scalar", {5, 13}, {5, 13}, {}},
      {"a scalar first", {1, 1600}, {1, 1}, {1600}},
      {"a row", {2, 7, 33}, {2, 7, 33}, {33}},
      {"a row of whole vectors", {99, 48}, {99, 48}, {48}},
      {"a row of vectors of 4 bytes an element", {7, 12}, {12}, {7, 12}},
      {"a column", {7, 33}, {7, 33}, {7, 1}},
      {"a column of whole vectors", {67, 40}, {67, 1}, {67, 40}},
      {"a channel of each image", {3, 3, 5, 16}, {3, 3, 5, 16}, {3, 1, 1, 16}},
      {"both stretched", {3, 4, 9}, {3, 1, 9}, {4, 1}},
      {"an outer product of vectors", {8, 16}, {8, 1}, {16}},
      {"alternating axes", {2, 5, 3, 4}, {2, 1, 3, 1}, {1, 5, 1, 4}},
      {"as many axes as there can be", {2, 3, 2, 2, 3, 2, 2, 8}, {2, 1, 2, 1, 3, 1, 2, 1}, {1, 3, 1, 2, 1, 2, 1, 8}},
      {"rows beyond a block", {700, 3}, {700, 3}, {3}},
  };
  for (const auto& [name, out, a, b] : layouts) {
    addTypes(std::string("broadcasting ") + name, [=, out = out, a = a, b = b](auto tag) {
      using T = decltype(tag);
      spread<Sub, T>(Sub(), out, {a, b});
      if (sizeOf(a) == sizeOf(out)) spread<Sub, T>(Sub(), out, {a, b}, 0);
      if (sizeOf(b) == sizeOf(out)) spread<Sub, T>(Sub(), out, {a, b}, 1);
    });
  }
  addTypes("where", [](auto tag) {
    using T = decltype(tag);
    spread<Where, T>(Where(), {3, 19}, {{3, 19}, {3, 19}, {3, 19}});
    spread<Where, T>(Where(), {5, 4, 8}, {{5, 1, 8}, {1, 4, 1}, {8}});
    spread<Where, T>(Where(), {5, 4, 7}, {{5, 1, 7}, {1, 4, 1}, {7}});
    spread<Where, T>(Where(), {77}, {{77}, {}, {1}});
    const Values condition = {0.0, -0.0, NAN, 1, -1}, a = {1, NAN, 3, 4, 5}, b = {6, 7, NAN, NAN, NAN};
    const Input<T> c(condition), left(a), right(b);
    Output<T> y(5);
    const Shape all[3] = {{5}, {5}, {5}};
    Layout<3> layout;
    broadcast(all[0], all, layout);
    check(mapBroadcast(Where(), layout, {c.data(), left.data(), right.data()}, y.data(), nullptr));
    expectEach<T>(y.values(), {6, 7, 3, 4, 5}, "of every kind");
  });
  addCase("one axis too many", [] {
    const Shape both[2] = {{2, 1, 2, 1, 2, 1, 2, 1, 2}, {1, 2, 1, 2, 1, 2, 1, 2, 1}};
    Layout<2> layout;
    if (broadcast({2, 2, 2, 2, 2, 2, 2, 2, 2}, both, layout)) fail("9 axes fit");
  });
  addTypes("cast", [](auto tag) {
    using T = decltype(tag);
    for (const size_t more : {0, 4096}) {
      castAll<T, float>(more);
      castAll<T, bf16>(more);
      castAll<T, f16>(more);
      castAll<T, int32_t>(more);
      castAll<T, uint8_t>(more);
      castAll<int32_t, T>(more);
      castAll<uint8_t, T>(more);
    }
  });
  addCase("cast of integers", [] {
    for (const size_t more : {0, 4096}) {
      castAll<int32_t, uint8_t>(more);
      castAll<uint8_t, int32_t>(more);
      castAll<int32_t, int32_t>(more);
      castAll<uint8_t, uint8_t>(more);
    }
  });
  addCase("fill", fillAll);
  return true;
}();

}  // namespace
