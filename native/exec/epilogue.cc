#include "exec/epilogue.h"

#include <cstring>

#include "exec/status.h"

namespace refl {

std::vector<EpilogueStep> epilogueOf(const NodeSpec& node, size_t first) {
  const auto need = [&](bool fine) {
    if (!fine)
      throw Error("ERR_PROGRAM", (node.layer.empty() ? "" : node.layer + ": ") + node.op->name +
                                     " has an epilogue that makes no sense");
  };
  const std::vector<int64_t> code = node.integers("code");
  const std::vector<double>& numbers = node.list("numbers");
  const Operand& y = node.outputs[0];
  need(code.size() % 2 == 0);
  std::vector<EpilogueStep> steps;
  size_t next = first;  // operands stand in the order in which steps take them
  for (size_t i = 0; i < code.size(); i += 2) {
    const auto place = static_cast<size_t>(code[i]), number = static_cast<size_t>(code[i + 1]);
    need(place < opTable().size());
    const OpInfo& op = opTable()[place];
    const size_t reads = op.attrs.size();
    need(number <= numbers.size() && reads <= numbers.size() - number);
    EpilogueStep step = {&op, 0, 1, false, {numbers.begin() + code[i + 1], numbers.begin() + code[i + 1] + reads}};
    need(op.inputs.size() == 1 || (op.inputs.size() == 2 && next < node.inputs.size()));
    if (op.inputs.size() == 2) {
      step.input = next++;
      const int64_t size = node.inputs[step.input].size(), columns = y.dim(-1);
      need(size == y.size() || (columns > 0 && size > 0 && size % columns == 0 && y.size() % size == 0));
      step.every = size ? y.size() / size : 1;
      step.valueSecond = std::strcmp(op.inputs[1], "dy") == 0;
    }
    steps.push_back(std::move(step));
  }
  need(next == node.inputs.size());
  return steps;
}

}  // namespace refl
