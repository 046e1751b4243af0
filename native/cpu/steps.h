#pragma once
// Elementwise operators as steps over a run of elements: of chains, and of what follows a product. Each is the
// operator's own function in a loop, so steps give the bits that nodes would.
#include <cstring>
#include <string>
#include <type_traits>

#include "cpu/activation.h"
#include "cpu/elementwise.h"
#include "exec/half.h"
#include "exec/tensor.h"

namespace refl::REFL_ISA {

// y[i] = op(a[i]), or op(a[i], b[i]). y may be a or b.
template <class T>
using StepFn = void (*)(const T* a, const T* b, T* y, int64_t n, const double* numbers);

template <class Op>
Op make(const double* numbers) {
  Op op;
  static_assert(std::is_empty_v<Op> || sizeof(Op) % sizeof(double) == 0);
  if constexpr (!std::is_empty_v<Op>) std::memcpy(&op, numbers, sizeof op);
  return op;
}

template <class Op, class T>
void unary(const T* a, const T*, T* y, int64_t n, const double* numbers) {
  const Op op = make<Op>(numbers);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = op(a[i]);
}

template <class Op, class T>
void binary(const T* a, const T* b, T* y, int64_t n, const double* numbers) {
  const Op op = make<Op>(numbers);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = op(a[i], b[i]);
}

template <class Half, class T>
void roundAs(T* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = Half(static_cast<float>(y[i]));
}

// Rounds values to a 16-bit dtype and leaves them where they are; does nothing for any other.
template <class T>
void roundTo(DType dtype, T* y, int64_t n) {
  if (dtype == DType::bf16) roundAs<BFloat16>(y, n);
  if (dtype == DType::f16) roundAs<Float16>(y, n);
}

// The step of an operator whose attributes are `numbers`; null where there is none.
template <class T>
StepFn<T> stepOf(const std::string& op, const double* numbers) {
  static const struct {
    const char* name;
    StepFn<T> run;
  } steps[] = {
      {"add", binary<Add, T>},
      {"sub", binary<Sub, T>},
      {"mul", binary<Mul, T>},
      {"div", binary<Div, T>},
      {"maximum", binary<Maximum, T>},
      {"minimum", binary<Minimum, T>},
      {"greater", binary<Greater, T>},
      {"greaterEqual", binary<GreaterEqual, T>},
      {"equal", binary<Equal, T>},
      {"neg", unary<Neg, T>},
      {"exp", unary<Exp, T>},
      {"log", unary<Log, T>},
      {"sqrt", unary<Sqrt, T>},
      {"rsqrt", unary<Rsqrt, T>},
      {"reciprocal", unary<Reciprocal, T>},
      {"square", unary<Square, T>},
      {"abs", unary<Abs, T>},
      {"sign", unary<Sign, T>},
      {"tanh", unary<Tanh, T>},
      {"sigmoid", unary<Sigmoid, T>},
      {"affine", unary<Affine, T>},
      {"clamp", unary<Clamp, T>},
      {"clampGrad", binary<ClampGrad, T>},
      {"leakyRelu", unary<LeakyRelu, T>},
      {"leakyReluGrad", binary<LeakyReluGrad, T>},
      {"silu", unary<Silu, T>},
      {"siluGrad", binary<SiluGrad, T>},
      {"gelu", unary<Gelu, T>},
      {"geluGrad", binary<GeluGrad, T>},
      {"quickGelu", unary<QuickGelu, T>},
      {"quickGeluGrad", binary<QuickGeluGrad, T>},
  };
  if (op == "leakyRelu" && *numbers == 0) return unary<Relu, T>;
  for (const auto& step : steps) {
    if (op == step.name) return step.run;
  }
  return nullptr;
}

}  // namespace refl::REFL_ISA
