#pragma once
// Values of a tensor that do not lie in one row in one file: transposed and sliced views, and tensors that are stored
// in parts.
#include <cstdint>
#include <string>
#include <vector>

#include "exec/tensor.h"

namespace refl {

// Values of `fileType` (FileValues' names) of a file, the first at byte `offset`. Neighbours along an axis lie
// `strides` values apart; without strides they lie in rows.
struct FileSlice {
  std::string path;
  uint64_t offset;
  std::string fileType;
  Shape shape;
  Shape strides;
};

// The values of `slices`, one after the other, as `dtype`. Reads each slice's span of its file once, in order, unless
// its axes overlap. Throws ERR_WEIGHTS: as FileValues does, on strides that do not fit their shape, and where there are
// not `count` values in all.
std::vector<std::byte> gather(const std::vector<FileSlice>& slices, DType dtype, int64_t count);

}  // namespace refl
