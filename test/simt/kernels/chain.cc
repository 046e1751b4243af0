// Chains of elementwise operators against float64: every step, a full stack, all inputs and numbers there can be, every
// form of broadcasting, float among 16-bit tensors, results over an input.
#include "chain/chain.h"

#include <cmath>
#include <memory>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;
using Shape = std::vector<int64_t>;
using Code = ChainCode;

namespace {

struct Operand {
  Shape shape;
  bool wide = false;
};

/** What a case runs: `code` holds pairs of a step and its argument. */
struct Case {
  std::vector<std::pair<Code, int>> code;
  std::vector<float> numbers;
  std::vector<Operand> inputs;
  Shape shape;
  bool yWide = false;
  int over = -1;  // the input that the result lies on
  double low = 0.5, high = 2;
  bool rounds = false;  // after each step, whose arithmetic float32 has no rounding for
};

double stepOf(Code code, double a, double b, const float* n) {
  switch (code) {
    case Code::kAdd:
      return a + b;
    case Code::kSub:
      return a - b;
    case Code::kMul:
      return a * b;
    case Code::kDiv:
      return a / b;
    case Code::kMaximum:
      return a >= b ? a : b;
    case Code::kMinimum:
      return a <= b ? a : b;
    case Code::kGreater:
      return a > b;
    case Code::kGreaterEqual:
      return a >= b;
    case Code::kEqual:
      return a == b;
    case Code::kClampGrad:
      return a >= n[0] && a <= n[1] ? b : 0;
    case Code::kLeakyReluGrad:
      return a > 0 ? b : n[0] * b;
    case Code::kNeg:
      return -b;
    case Code::kExp:
      return std::exp(b);
    case Code::kLog:
      return std::log(b);
    case Code::kSqrt:
      return std::sqrt(b);
    case Code::kRsqrt:
      return 1 / std::sqrt(b);
    case Code::kReciprocal:
      return 1 / b;
    case Code::kSquare:
      return b * b;
    case Code::kAbs:
      return std::fabs(b);
    case Code::kSign:
      return b > 0 ? 1 : b < 0 ? -1 : b;
    case Code::kTanh:
      return std::tanh(b);
    case Code::kSigmoid:
      return 1 / (1 + std::exp(-b));
    case Code::kAffine:
      return n[0] * b + n[1];
    case Code::kClamp:
      return b < n[0] ? n[0] : b > n[1] ? n[1] : b;
    case Code::kRelu:
      return b < 0 ? 0 : b;
    case Code::kLeakyRelu:
      return b > 0 ? b : n[0] * b;
    default:
      fail("no such step");
  }
}

bool isBinary(Code code) { return code >= Code::kAdd && code <= Code::kLeakyReluGrad; }

template <class T>
double valueOf(const Case& c, const std::vector<double>& inputs) {
  Values stack;
  const auto held = [&](double v) { return c.rounds ? rounded<T>(v) : v; };
  for (const auto& [code, argument] : c.code) {
    if (code == Code::kInput || code == Code::kNumber) {
      stack.push_back(code == Code::kInput ? inputs[argument] : held(c.numbers[argument]));
      continue;
    }
    const double b = stack.back();
    stack.pop_back();
    double a = 0;
    if (isBinary(code)) {
      a = stack.back();
      stack.pop_back();
    }
    stack.push_back(held(stepOf(code, a, b, c.numbers.data() + argument)));
  }
  return stack.at(0);
}

int64_t sizeOf(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

/** Where element `at` of `out` lies in an operand of `shape`. */
int64_t placeOf(int64_t at, const Shape& out, const Shape& shape) {
  int64_t place = 0, size = 1;
  for (size_t back = 1; back <= out.size(); ++back) {
    const int64_t index = at % out[out.size() - back];
    at /= out[out.size() - back];
    if (back > shape.size()) continue;
    if (shape[shape.size() - back] > 1) place += index * size;
    size *= shape[shape.size() - back];
  }
  return place;
}

template <class T>
void expect(const Case& c) {
  ChainProgram program = {};
  for (const auto& [code, argument] : c.code) program.step[program.steps++] = {code, static_cast<uint8_t>(argument)};
  std::copy(c.numbers.begin(), c.numbers.end(), program.numbers);
  program.rounds = c.rounds;

  ChainTensors tensors = {};
  Shape shapes[kChainInputs];
  std::vector<Values> values;
  std::vector<std::unique_ptr<Input<T>>> narrow;
  std::vector<std::unique_ptr<Input<float>>> wide;
  for (const Operand& operand : c.inputs) {
    const int k = tensors.count++;
    shapes[k] = operand.shape;
    tensors.wide[k] = operand.wide;
    const Values drawn = uniform(sizeOf(operand.shape), c.low, c.high, 31 + k);
    if (operand.wide) {
      wide.push_back(std::make_unique<Input<float>>(drawn));
      tensors.in[k] = wide.back()->data();
      values.push_back(wide.back()->values());
    } else {
      narrow.push_back(std::make_unique<Input<T>>(drawn));
      tensors.in[k] = narrow.back()->data();
      values.push_back(narrow.back()->values());
    }
  }
  Layout<kChainInputs> layout;
  if (!broadcast(c.shape, shapes, layout)) fail("too many axes");

  Values wanted(sizeOf(c.shape));
  for (size_t i = 0; i < wanted.size(); ++i) {
    Values at;
    for (size_t k = 0; k < values.size(); ++k) at.push_back(values[k][placeOf(i, c.shape, shapes[k])]);
    wanted[i] = valueOf<T>(c, at);
  }
  const bool isFloat = c.yWide || std::is_same_v<T, float>;
  const double unit = isFloat ? 1e-5 : std::is_same_v<T, bf16> ? 0x1.03p-8 : 0x1.03p-11;
  const auto compare = [&](const Values& got) {
    for (size_t i = 0; i < wanted.size(); ++i)
      if (!(std::abs(got[i] - wanted[i]) <= (c.rounds ? 0 : unit * std::abs(wanted[i]) + 2e-6)))
        fail("element %zu is %.9g and should be %.9g", i, got[i], wanted[i]);
  };
  tensors.yWide = c.yWide;
  if (c.over >= 0) {
    tensors.y = const_cast<void*>(tensors.in[c.over]);
    check(chain<T>(program, tensors, layout, nullptr));
    compare(narrow[c.over]->values());
  } else if (c.yWide) {
    Output<float> y(wanted.size());
    tensors.y = y.data();
    check(chain<T>(program, tensors, layout, nullptr));
    compare(y.values());
  } else {
    Output<T> y(wanted.size());
    tensors.y = y.data();
    check(chain<T>(program, tensors, layout, nullptr));
    compare(y.values());
  }
}

void addTypes(const std::string& name, const Case& c) {
  addCase("f32 " + name, [=] { expect<float>(c); });
  addCase("bf16 " + name, [=] { expect<bf16>(c); });
  addCase("f16 " + name, [=] { expect<f16>(c); });
}

const bool added = [] {
  const auto in = [](int k) { return std::pair(Code::kInput, k); };
  const auto number = [](int k) { return std::pair(Code::kNumber, k); };
  const auto step = [](Code code, int argument = 0) { return std::pair(code, argument); };

  const std::pair<const char*, Code> binary[] = {
      {"add", Code::kAdd},
      {"sub", Code::kSub},
      {"mul", Code::kMul},
      {"div", Code::kDiv},
      {"maximum", Code::kMaximum},
      {"minimum", Code::kMinimum},
      {"greater", Code::kGreater},
      {"greaterEqual", Code::kGreaterEqual},
      {"equal", Code::kEqual},
      {"clampGrad", Code::kClampGrad},
      {"leakyReluGrad", Code::kLeakyReluGrad},
  };
  // The operands are values between steps, and a third lies below them on the stack.
  for (const auto& [name, code] : binary) {
    addTypes(name, {{in(1), in(0), step(Code::kNeg), in(1), step(Code::kNeg), step(code, 0), step(Code::kAdd)},
                    {-1.25f, 0.75f},
                    {{{3, 23}}, {{3, 23}}},
                    {3, 23}});
  }
  const std::pair<const char*, Code> unary[] = {
      {"exp", Code::kExp},       {"log", Code::kLog},     {"sqrt", Code::kSqrt},
      {"rsqrt", Code::kRsqrt},   {"neg", Code::kNeg},     {"reciprocal", Code::kReciprocal},
      {"square", Code::kSquare}, {"tanh", Code::kTanh},   {"sigmoid", Code::kSigmoid},
      {"affine", Code::kAffine}, {"clamp", Code::kClamp}, {"abs", Code::kAbs},
      {"relu", Code::kRelu},     {"sign", Code::kSign},   {"leakyRelu", Code::kLeakyRelu},
  };
  for (const auto& [name, code] : unary) {
    addTypes(name, {{in(0), number(0), step(Code::kAdd), step(code, 1), number(3), step(Code::kMul)},
                    {0.25f, 0.5f, 1.125f, 3.0f},
                    {{{77}}},
                    {77}});
  }
  for (const auto& [name, code] : {std::pair("abs", Code::kAbs), std::pair("sign", Code::kSign),
                                   std::pair("relu", Code::kRelu), std::pair("leakyRelu", Code::kLeakyRelu)}) {
    Case c = {{in(0), step(code, 0), in(0), step(Code::kAdd)}, {0.25f}, {{{64}}}, {64}};
    c.low = -2;
    addTypes(std::string(name) + " of values of both signs", c);
  }

  // a - (b - (c - d)), then the same once more with numbers: four values on the stack.
  addTypes("a full stack", {{in(0), in(1), in(2), in(3), step(Code::kSub), step(Code::kSub), step(Code::kSub),
                             number(0), number(1), number(2), step(Code::kMul), step(Code::kAdd), step(Code::kDiv)},
                            {1.5f, 0.5f, 3.0f},
                            {{{40}}, {{40}}, {{40}}, {{40}}},
                            {40}});
  {
    Case c = {{in(0)}, {}, {}, {5, 16}};
    for (int k = 0; k < kChainInputs; ++k) c.inputs.push_back({{5, 16}});
    for (int k = 1; k < kChainInputs; ++k) {
      c.code.push_back(in(k));
      c.code.push_back(step(k % 2 ? Code::kMul : Code::kAdd));
    }
    for (int k = 0; k < kChainNumbers; k += 2) {
      c.numbers.push_back(0.75f + static_cast<float>(k) / 64);
      c.numbers.push_back(0.125f * static_cast<float>(k + 1));
      c.code.push_back(step(Code::kAffine, k));
    }
    while (c.code.size() < kChainSteps) c.code.push_back(step(Code::kNeg));
    addTypes("as much of everything as there can be", c);
  }

  const struct {
    const char* name;
    Shape out, a, b;
  } layouts[] = {
      {"one element", {1, 1}, {}, {1, 1}},
      {"a scalar", {5, 13}, {5, 13}, {}},
      {"a row", {2, 7, 33}, {2, 7, 33}, {33}},
      {"a row of whole vectors", {99, 48}, {99, 48}, {48}},
      {"a column", {7, 33}, {7, 33}, {7, 1}},
      {"a column of whole vectors", {67, 40}, {67, 1}, {67, 40}},
      {"a channel of each image", {3, 3, 5, 16}, {3, 3, 5, 16}, {3, 1, 1, 16}},
      {"a number of each image", {3, 4, 5, 4}, {3, 1, 1, 1}, {3, 4, 5, 4}},
      {"both stretched", {3, 4, 9}, {3, 1, 9}, {4, 1}},
      {"alternating axes", {2, 5, 3, 4}, {2, 1, 3, 1}, {1, 5, 1, 4}},
      {"rows beyond a block", {700, 3}, {700, 3}, {3}},
      {"vectors beyond a block", {2, 2056}, {2, 2056}, {2, 2056}},
  };
  for (const auto& [name, out, a, b] : layouts) {
    Case c = {{in(0), in(1), step(Code::kSub), step(Code::kSquare), in(0), step(Code::kAdd)}, {}, {{a}, {b}}, out};
    addTypes(std::string("broadcasting ") + name, c);
    if (sizeOf(a) != sizeOf(out)) continue;
    c.over = 0;
    addTypes(std::string("in place, broadcasting ") + name, c);
  }
  for (const bool yWide : {false, true}) {
    for (const int64_t width : {37, 24}) {
      const Case c = {{in(0), in(1), step(Code::kMul), in(2), step(Code::kAdd), in(3), step(Code::kSub)},
                      {},
                      {{{3, width}, true}, {{3, width}}, {{width}, true}, {{3, 1}, true}},
                      {3, width},
                      yWide};
      addTypes(std::string("float among them, to ") + (yWide ? "float, " : "itself, ") + std::to_string(width), c);
    }
  }
  // Products, and sums of numbers of one size, of 16-bit floats are exact in float32.
  for (const int64_t width : {37, 24}) {
    Case c = {{in(0), in(1), step(Code::kMul), in(2), step(Code::kAdd), number(0), step(Code::kMul), in(0),
               step(Code::kSub), step(Code::kSquare)},
              {1.3f},
              {{{3, width}}, {{width}}, {{3, width}}},
              {3, width}};
    c.rounds = true;
    addCase("bf16 rounded between steps, " + std::to_string(width), [=] { expect<bf16>(c); });
    addCase("f16 rounded between steps, " + std::to_string(width), [=] { expect<f16>(c); });
  }
  return true;
}();

}  // namespace
