#include "exec/node.h"

#include <cmath>
#include <cstring>

#include "exec/status.h"

namespace refl {

const std::vector<double>& NodeSpec::list(const char* name) const {
  for (size_t i = 0; i < op->attrs.size(); i++) {
    if (std::strcmp(op->attrs[i], name) == 0) return attrs[i];
  }
  throw Error("ERR_PROGRAM", std::string(op->name) + " has no attribute " + name);
}

std::vector<int64_t> NodeSpec::integers(const char* name) const {
  const std::vector<double>& values = list(name);
  for (double v : values) {
    const bool whole = std::trunc(v) == v && std::abs(v) <= 0x1p53;
    if (!whole) throw Error("ERR_PROGRAM", std::string(op->name) + " needs whole numbers as " + name);
  }
  return {values.begin(), values.end()};
}

std::string describe(DType dtype, const Shape& shape) {
  static const char* names[] = {"f32", "f64", "i32", "u8", "bf16", "f16"};
  std::string text = std::string(names[static_cast<int>(dtype)]) + "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace refl
