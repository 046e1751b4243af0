#pragma once
// Reading tensors out of files. By pread, never mmap: a file that is cut short while it is read gives a typed
// error here, where a mapping would raise SIGBUS and end the process.
#include <cstdint>
#include <memory>
#include <string>

#include "exec/tensor.h"

namespace refl {

class File;
struct Conversion;

// The values of a tensor in a file, read as often as they are wanted. The file stays open, so renaming or deleting it
// does no harm; that it was written to meanwhile is noticed by its size and time of change.
class FileValues {
 public:
  // `count` values of `fileType` (safetensors' names: F64 F32 F16 BF16 I64 I32 U8) at byte `offset` of `path`, wanted
  // as `dtype`. Throws ERR_WEIGHTS: no such file, values beyond its end, types that do not convert.
  FileValues(const std::string& path, uint64_t offset, const std::string& fileType, DType dtype, int64_t count);

  // Reads values [first, first + count) to `to`; several threads may at once. Throws ERR_WEIGHTS where the file changed
  // since it was opened or cannot be read, and for I64 values beyond 32 bits.
  void read(int64_t first, int64_t count, void* to) const;

  // Whether a value may be refused for what it is, which can only be known by reading it.
  bool mayRefuse() const;

 private:
  std::shared_ptr<const File> file_;
  uint64_t offset_;
  const Conversion* conversion_;
};

}  // namespace refl
