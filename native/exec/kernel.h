#pragma once
// What a backend implements: for every row of ops.json, a function that binds one node of a program. Binding
// reads shapes and attributes once, chooses an implementation and returns a closure; running it only computes.
#include <functional>
#include <memory>
#include <vector>

#include "exec/buffer.h"
#include "exec/node.h"

namespace refl {

// Resolved addresses of one run. An optional input that was left out has null data, as has one of `Bound::packed`.
struct Args {
  const Tensor* in;
  const Tensor* out;
  std::byte* scratch;  // `Bound::scratch` bytes, 64-byte aligned, contents undefined
};

// An input whose plain bytes a kernel never looks at, because it has this packed copy (the null device: nothing).
struct PackedInput {
  size_t input;
  std::shared_ptr<Pack> pack;
};

struct Bound {
  std::function<void(const Args&)> run;
  size_t scratch = 0;
  std::vector<PackedInput> packed = {};
  // Where set, called before the segments of each run; true says that what was recorded of earlier runs is out of date.
  std::function<bool()> prepare = {};
};

using Bind = Bound (*)(const NodeSpec&);

}  // namespace refl
