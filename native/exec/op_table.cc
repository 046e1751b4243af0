#include "exec/op_table.h"

#include <unordered_map>

namespace refl {

const std::vector<OpInfo>& opTable() {
  static const std::vector<OpInfo> table = {
#include "op_table.inc"
  };
  return table;
}

const OpInfo* findOp(const std::string& name) {
  static const auto index = [] {
    std::unordered_map<std::string, const OpInfo*> byName;
    for (const OpInfo& op : opTable()) byName.emplace(op.name, &op);
    return byName;
  }();
  const auto found = index.find(name);
  return found == index.end() ? nullptr : found->second;
}

}  // namespace refl
