#pragma once
// A node of a program before it runs: dtypes, shapes and attributes, no addresses. What every backend's binders read.
#include <cstddef>
#include <string>
#include <vector>

#include "exec/op_table.h"
#include "exec/tensor.h"

namespace refl {

class Buffer;

// One input or output of a node at bind time. `data` pointers are not known yet: see Args.
struct Operand {
  DType dtype = DType::f32;
  Shape shape;
  bool present = false;      // false for an optional input that was left out
  Buffer* buffer = nullptr;  // set for parameters and constants: persistent bytes
  bool frozen = false;       // the buffer never changes, so packing it once is safe

  int64_t size() const { return sizeOf(shape); }
  int64_t rank() const { return static_cast<int64_t>(shape.size()); }
  int64_t dim(int64_t i) const { return shape[static_cast<size_t>(i < 0 ? i + rank() : i)]; }
};

// A node of a program, as its kernel binder sees it.
struct NodeSpec {
  const OpInfo* op = nullptr;
  std::string layer;            // for messages only
  std::vector<Operand> inputs;  // fixed inputs in table order, then the groups
  std::vector<Operand> outputs;
  std::vector<std::vector<double>> attrs;  // in table order
  bool tf32 = false;                       // of the device: products of float32 may round their operands to tf32
  DType rounded = DType::f32;  // of operands that a CPU kernel sees in float32: what steps in a product round to

  const std::vector<double>& list(const char* name) const;  // throws on a name that is not in the table
  double number(const char* name) const { return list(name).at(0); }
  int64_t integer(const char* name) const { return integers(name).at(0); }
  bool flag(const char* name) const { return number(name) != 0; }
  std::vector<int64_t> integers(const char* name) const;  // throws on what is not a whole number
};

}  // namespace refl
