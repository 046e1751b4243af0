// Epilogues of products for their tests: operands at random, and what the steps make of a value in float64.
#pragma once
#include <cmath>
#include <memory>

#include "gemm/epilogue.h"
#include "harness.h"

namespace harness {

using Code = refl::cuda::EpilogueCode;

/** A step; `every` counts the rows that share one of its operand, or is 0 where it has none. */
struct Step {
  Code code;
  int every = 0;
  double a = 0, b = 0;
};

struct Finishing {
  std::vector<Step> steps;
  bool toFloat = false;
};

/** Every step there is; as many rows share an operand's as `every` says. */
inline std::vector<Finishing> finishings(int every, int all) {
  return {{{{Code::kAdd, 1, 1}}},
          {{{Code::kAdd, every, 1}, {Code::kGated, 0, 1}, {Code::kMul, all}, {Code::kAdd, 1, -0.5}}},
          {{{Code::kMul, 1}, {Code::kAffine, 0, 0.75, -0.25}, {Code::kRelu}}, true},
          {{{Code::kLeakyRelu, 0, 0.25}, {Code::kGelu}, {Code::kLeakyReluGrad, 1, 0.125}}},
          {{{Code::kGatedGrad, 1, 1.702}, {Code::kGeluGrad, all}}, true},
          {{}, true}};
}

/** A Finishing of a result of rows x columns whose product has type T. */
template <class T>
class Finisher {
 public:
  Finisher(const Finishing& finishing, int rows, int columns, size_t skip = 0)
      : steps_(finishing.steps), columns_(columns) {
    epilogue_.steps = static_cast<int>(steps_.size());
    epilogue_.toFloat = finishing.toFloat;
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Step& step = steps_[i];
      refl::cuda::Epilogue::Step& to = epilogue_.step[i];
      to = {step.code, step.every, nullptr, static_cast<float>(step.a), static_cast<float>(step.b)};
      values_.emplace_back();
      if (step.every == 0) continue;
      std::vector<double> values = uniform(static_cast<size_t>(rows / step.every) * columns, -1, 1, 81 + i);
      if (!values.empty()) values[0] = 0;  // where slopes change
      operands_.push_back(std::make_unique<Input<T>>(values, skip));
      values_.back() = operands_.back()->values();
      to.operand = operands_.back()->data();
    }
  }

  const refl::cuda::Epilogue& epilogue() const { return epilogue_; }

  double of(double v, size_t row, size_t column) const {
    return taken(v, row, column, [](double y) { return y; });
  }

  /** The same by a plain loop in T, which rounds what goes into a step and what comes of it. */
  double naively(double v, size_t row, size_t column) const { return taken(v, row, column, rounded<T>); }

 private:
  template <class Round>
  double taken(double v, size_t row, size_t column, const Round& round) const {
    v = round(v);
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Step& step = steps_[i];
      const double x = step.every ? values_[i][row / step.every * columns_ + column] : v, a = epilogue_.step[i].a;
      const double gate = 1 / (1 + std::exp(-a * x)), cdf = std::erfc(-x / std::sqrt(2.0)) / 2;
      switch (step.code) {
        case Code::kAdd:
          v += a * x;
          break;
        case Code::kMul:
          v *= x;
          break;
        case Code::kAffine:
          v = a * v + epilogue_.step[i].b;
          break;
        case Code::kRelu:
          v = v < 0 ? 0 : v;
          break;
        case Code::kLeakyRelu:
          v = v > 0 ? v : a * v;
          break;
        case Code::kLeakyReluGrad:
          v = x > 0 ? v : a * v;
          break;
        case Code::kGated:
          v *= gate;
          break;
        case Code::kGatedGrad:
          v *= gate + a * x * gate * (1 - gate);
          break;
        case Code::kGelu:
          v *= cdf;
          break;
        case Code::kGeluGrad:
          v *= cdf + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
          break;
      }
      v = round(v);
    }
    return v;
  }

  std::vector<Step> steps_;
  size_t columns_;
  refl::cuda::Epilogue epilogue_ = {};
  std::vector<std::unique_ptr<Input<T>>> operands_;
  std::vector<std::vector<double>> values_;
};

}  // namespace harness
