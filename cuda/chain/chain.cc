// Binder of chains.
#include "chain/chain.h"

#include <algorithm>

#include "backend/kernel.h"

namespace refl::cuda {
namespace {

bool codeOf(const std::string& op, ChainCode& code) {
  static const struct {
    const char* name;
    ChainCode code;
  } codes[] = {
      {"input", ChainCode::kInput},
      {"full", ChainCode::kNumber},
      {"add", ChainCode::kAdd},
      {"sub", ChainCode::kSub},
      {"mul", ChainCode::kMul},
      {"div", ChainCode::kDiv},
      {"maximum", ChainCode::kMaximum},
      {"minimum", ChainCode::kMinimum},
      {"greater", ChainCode::kGreater},
      {"greaterEqual", ChainCode::kGreaterEqual},
      {"equal", ChainCode::kEqual},
      {"clampGrad", ChainCode::kClampGrad},
      {"leakyReluGrad", ChainCode::kLeakyReluGrad},
      {"neg", ChainCode::kNeg},
      {"exp", ChainCode::kExp},
      {"log", ChainCode::kLog},
      {"sqrt", ChainCode::kSqrt},
      {"rsqrt", ChainCode::kRsqrt},
      {"reciprocal", ChainCode::kReciprocal},
      {"square", ChainCode::kSquare},
      {"abs", ChainCode::kAbs},
      {"sign", ChainCode::kSign},
      {"tanh", ChainCode::kTanh},
      {"sigmoid", ChainCode::kSigmoid},
      {"affine", ChainCode::kAffine},
      {"clamp", ChainCode::kClamp},
      {"leakyRelu", ChainCode::kLeakyRelu},
  };
  for (const auto& it : codes) {
    if (op != it.name) continue;
    code = it.code;
    return true;
  }
  return false;
}

/** The node's code for the kernel. Nothing in it is trusted: operators, arguments and the stack's depth are checked. */
ChainProgram programOf(const NodeSpec& node) {
  ChainProgram program = {};
  program.rounds = node.flag("rounds");
  const std::vector<double>& numbers = node.list("numbers");
  const std::vector<int64_t> code = node.integers("code");
  const auto need = [&](bool fine) {
    if (!fine) refuse(node, "ERR_PROGRAM", "has code that makes no sense");
  };
  need(numbers.size() <= kChainNumbers && code.size() % 2 == 0 && code.size() <= 2 * kChainSteps);
  std::transform(numbers.begin(), numbers.end(), program.numbers, [](double v) { return static_cast<float>(v); });
  int depth = 0;
  for (size_t i = 0; i < code.size(); i += 2) {
    const auto place = static_cast<size_t>(code[i]), argument = static_cast<size_t>(code[i + 1]);
    need(place < opTable().size());
    const OpInfo& op = opTable()[place];
    ChainProgram::Step& step = program.step[program.steps++];
    need(codeOf(op.name, step.code));
    if (step.code == ChainCode::kInput) {
      need(argument < node.inputs.size());
    } else {
      const size_t reads = step.code == ChainCode::kNumber ? 1 : op.attrs.size();
      need(argument <= numbers.size() && reads <= numbers.size() - argument);
    }
    step.argument = static_cast<uint8_t>(argument);
    if (step.code == ChainCode::kLeakyRelu && program.numbers[argument] == 0) step.code = ChainCode::kRelu;
    const bool pushes = step.code == ChainCode::kInput || step.code == ChainCode::kNumber;
    need(pushes || depth >= static_cast<int>(op.inputs.size()));
    depth += pushes ? 1 : op.inputs.size() == 2 ? -1 : 0;
    need(depth <= kChainDepth);
  }
  need(depth == 1);
  return program;
}

}  // namespace

Bound bindChain(const NodeSpec& node) {
  const ChainProgram program = programOf(node);
  const Operand& y = node.outputs[0];
  if (node.inputs.size() > kChainInputs) refuse(node, "ERR_PROGRAM", "has too many inputs");
  ChainTensors tensors = {};
  tensors.count = static_cast<int>(node.inputs.size());
  std::vector<int64_t> shapes[kChainInputs];
  DType narrowest = y.dtype;  // float32, or the one 16-bit type among the tensors
  for (int k = 0; k < tensors.count; ++k) {
    shapes[k] = node.inputs[k].shape;
    if (narrowest == DType::f32) narrowest = node.inputs[k].dtype;
  }
  for (int k = 0; k < tensors.count; ++k) {
    const DType dtype = node.inputs[k].dtype;
    if (dtype != DType::f32 && dtype != narrowest) refuse(node, "ERR_DTYPE", "mixes dtypes");
    tensors.wide[k] = dtype == DType::f32;
  }
  if (y.dtype != DType::f32 && y.dtype != narrowest) refuse(node, "ERR_DTYPE", "mixes dtypes");
  tensors.yWide = y.dtype == DType::f32;
  const bool mixed = tensors.yWide || std::count(tensors.wide, tensors.wide + tensors.count, true) > 0;
  if (program.rounds && mixed) refuse(node, "ERR_DTYPE", "rounds to a dtype that not all its operands have");
  return onFloat(narrowest, node, [&](auto tag) -> Bound {
    if (narrow(node, y.size()) == 0) return nothing();
    Layout<kChainInputs> layout;
    if (!broadcast(y.shape, shapes, layout))
      refuse(node, "ERR_SHAPE",
             "broadcasts along more than " + std::to_string(kMostAxes) + " axes that CUDA kernels cannot merge");
    return {[program, tensors, layout](const Args& a) {
      ChainTensors now = tensors;
      for (int k = 0; k < now.count; ++k) now.in[k] = a.in[k].data;
      now.y = a.out[0].data;
      return chain<decltype(tag)>(program, now, layout, a.stream);
    }};
  });
}

}  // namespace refl::cuda
