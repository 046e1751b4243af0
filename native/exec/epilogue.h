#pragma once
// What a product does to each of its elements before it writes them: elementwise operators that lib/graph/fuse.ts took
// from the nodes behind it. Every backend runs these steps in its own way.
#include <vector>

#include "exec/node.h"

namespace refl {

// One operator on the value so far. Where it takes two operands, the other one is an input of the node, read as
// [its size / columns, columns] with `every` rows of the result to each of its rows, counted over a batch.
struct EpilogueStep {
  const OpInfo* op;
  size_t input;  // of the node, or 0 where the operator takes one operand
  int64_t every;
  bool valueSecond;             // the value so far is the second operand
  std::vector<double> numbers;  // the operator's attributes, in the table's order
};

// The steps of a node whose operands begin at input `first`, checked: nothing in them is trusted. Throws ERR_PROGRAM.
std::vector<EpilogueStep> epilogueOf(const NodeSpec& node, size_t first);

}  // namespace refl
