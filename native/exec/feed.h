#pragma once
// The bytes of a feed on their way into a program.
#include <cstddef>
#include <cstring>
#include <memory>

#include "exec/status.h"

namespace refl {

// Filled from its start, in one part or several; nothing is written to its memory before.
class Feed {
 public:
  explicit Feed(size_t bytes) : bytes_(new std::byte[bytes]), size_(bytes) {}

  void append(const std::byte* from, size_t bytes) {
    if (bytes > size_ - filled_) throw Error("ERR_FEED", "a feed is given more bytes than it was made for");
    if (bytes > 0) std::memcpy(bytes_.get() + filled_, from, bytes);
    filled_ += bytes;
  }

  const std::byte* data() const { return bytes_.get(); }
  // Bytes that have come.
  size_t size() const { return filled_; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  size_t size_, filled_ = 0;
};

}  // namespace refl
