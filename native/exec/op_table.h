#pragma once
// ops.json as C++ sees it. The rows are generated from the file at build time (scripts/op-table.mjs).
#include <string>
#include <vector>

namespace refl {

struct OpInfo {
  const char* name;
  const char* family;
  std::vector<const char*> inputs;  // fixed inputs, "?" appended where optional
  std::vector<const char*> group;   // repeats after the fixed inputs
  std::vector<const char*> outputs;
  std::vector<const char*> attrs;   // names only, in order
  std::vector<const char*> writes;  // group members that are overwritten
  bool view;
};

const std::vector<OpInfo>& opTable();
const OpInfo* findOp(const std::string& name);

}  // namespace refl
