#pragma once
// The steps that follow a product, on parts of its rows that have just been computed and still are in the cache: each
// step is a loop over such a part. Arithmetic is T, and the operators' own, so results are those of separate nodes.
#include <cstring>
#include <vector>

#include "cpu/steps.h"
#include "cpu/support.h"
#include "exec/epilogue.h"

namespace refl::REFL_ISA {

template <class T>
class Epilogue {
 public:
  // Of a node whose epilogue's operands begin at input `first`.
  Epilogue(const NodeSpec& node, size_t first) : columns_(node.outputs[0].dim(-1)), rounded_(node.rounded) {
    const DType own = node.outputs[0].dtype;
    for (const Operand& x : node.inputs) {
      if (x.present && x.dtype != own)
        throw Error("ERR_DTYPE", node.layer + ": " + node.op->name + " has no kernel for operands of this dtype");
    }
    for (EpilogueStep& step : epilogueOf(node, first)) {
      // A cast to float32 comes last, and leaves what was rounded as it is.
      if (rounded_ != DType::f32 && std::strcmp(step.op->name, "cast") == 0) continue;
      const StepFn<T> run = stepOf<T>(step.op->name, step.numbers.data());
      if (!run) throw Error("ERR_PROGRAM", node.layer + ": " + step.op->name + " cannot follow a product");
      steps_.push_back({step.input, step.every, step.valueSecond, std::move(step.numbers), run});
    }
  }

  // Takes `count` elements from y on, which lie in one row of out[0], through all steps.
  void finish(const Args& args, T* y, int64_t count) const {
    const int64_t at = y - args.out[0].as<T>();
    roundTo(rounded_, y, count);
    for (const Step& step : steps_) {
      const T* x = y;
      if (step.input) {
        const Tensor& operand = args.in[step.input];
        x = operand.as<T>() + at / columns_ / step.every * columns_ + at % columns_;
      }
      step.run(step.valueSecond ? x : y, step.valueSecond ? y : x, y, count, step.numbers.data());
      roundTo(rounded_, y, count);
    }
  }

 private:
  struct Step {
    size_t input;
    int64_t every;
    bool valueSecond;
    std::vector<double> numbers;
    StepFn<T> run;
  };
  int64_t columns_;
  DType rounded_;  // as nodes between which values are kept in 16 bits would
  std::vector<Step> steps_;
};

}  // namespace refl::REFL_ISA
