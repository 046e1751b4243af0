// What binders of products make of a node's epilogue.
#pragma once
#include "backend/kernel.h"
#include "exec/epilogue.h"
#include "gemm/epilogue.h"

namespace refl::cuda {

/** A node's epilogue, without addresses. */
class BoundEpilogue {
 public:
  /** Of a node whose operands begin at input `first`. */
  BoundEpilogue(const NodeSpec& node, size_t first) {
    const DType type = node.inputs[0].dtype, written = node.outputs[0].dtype;
    epilogue_.toFloat = written == DType::f32 && type != DType::f32;
    if (written != type && !epilogue_.toFloat) refuse(node, "ERR_DTYPE", "mixes dtypes");
    const std::vector<EpilogueStep> steps = epilogueOf(node, first);
    if (steps.size() > kEpilogueSteps) refuse(node, "ERR_PROGRAM", "has too long an epilogue");
    if (!steps.empty() && node.outputs[0].dim(-1) > 0) narrow(node, node.outputs[0].size() / node.outputs[0].dim(-1));
    for (const EpilogueStep& step : steps) {
      Epilogue::Step& to = epilogue_.step[epilogue_.steps];
      inputs_[epilogue_.steps++] = step.input;
      if (!codeOf(step, to)) refuse(node, "ERR_PROGRAM", std::string("cannot be followed by ") + step.op->name);
      to.every = step.input ? narrow(node, step.every) : 1;
      if (!step.input) continue;
      if (node.inputs[step.input].dtype != type) refuse(node, "ERR_DTYPE", "mixes dtypes");
    }
  }

  Epilogue at(const Args& args) const {
    Epilogue now = epilogue_;
    for (int i = 0; i < now.steps; ++i)
      if (inputs_[i]) now.step[i].operand = args.in[inputs_[i]].data;
    return now;
  }

 private:
  static bool codeOf(const EpilogueStep& step, Epilogue::Step& to) {
    static const struct {
      const char* name;
      EpilogueCode code;
      float a;  // where the operator has no attributes
    } codes[] = {
        {"add", EpilogueCode::kAdd, 1},
        {"sub", EpilogueCode::kAdd, -1},
        {"mul", EpilogueCode::kMul, 0},
        {"affine", EpilogueCode::kAffine, 0},
        {"leakyRelu", EpilogueCode::kLeakyRelu, 0},
        {"leakyReluGrad", EpilogueCode::kLeakyReluGrad, 0},
        {"silu", EpilogueCode::kGated, 1},
        {"siluGrad", EpilogueCode::kGatedGrad, 1},
        {"quickGelu", EpilogueCode::kGated, 1.702f},
        {"quickGeluGrad", EpilogueCode::kGatedGrad, 1.702f},
        {"gelu", EpilogueCode::kGelu, 0},
        {"geluGrad", EpilogueCode::kGeluGrad, 0},
    };
    for (const auto& it : codes) {
      if (step.op->name != std::string(it.name)) continue;
      const std::vector<double>& numbers = step.numbers;
      to.code = it.code;
      to.a = numbers.empty() ? it.a : static_cast<float>(numbers[0]);
      to.b = numbers.size() > 1 ? static_cast<float>(numbers[1]) : 0;
      if (to.code == EpilogueCode::kLeakyRelu && to.a == 0) to.code = EpilogueCode::kRelu;
      return true;
    }
    return false;
  }

  Epilogue epilogue_ = {};
  size_t inputs_[kEpilogueSteps] = {};
};

}  // namespace refl::cuda
