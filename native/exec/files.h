#pragma once
// Reading tensors out of files. By pread, never mmap: a file that is cut short while it is read gives a typed
// error here, where a mapping would raise SIGBUS and end the process.
#include <cstdint>
#include <string>

#include "exec/buffer.h"

namespace refl {

// Reads `count` elements of `fileType` (safetensors' names: F64 F32 F16 BF16 I64 I32 U8) at byte `offset` of `path`
// into `buffer`, converting to its dtype. I64 values must fit into 32 bits. Throws ERR_WEIGHTS.
void readInto(Buffer& buffer, const std::string& path, uint64_t offset, const std::string& fileType);

}  // namespace refl
