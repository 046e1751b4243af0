// What a product of float32 multiplies: its operands, or their roundings to tf32.
#pragma once
#include <vector>

#include "harness.h"
#include "simt/mma.h"

namespace harness {

inline std::vector<double> multiplied(const Input<float>& operand, bool tf32) {
  std::vector<double> values = operand.values();
  if (tf32)
    for (double& value : values) {
      const uint32_t bits = simt::toTf32(static_cast<float>(value));
      float rounded;
      std::memcpy(&rounded, &bits, sizeof rounded);
      value = rounded;
    }
  return values;
}

}  // namespace harness
