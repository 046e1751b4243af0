#pragma once
// A persistent device buffer: a parameter, an optimizer moment, a constant. On the CPU it may also keep packed
// copies of its bytes (a weight in a convolution's blocked layout), made once and shared by all programs.
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "exec/tensor.h"

namespace refl {

// Zeroed, page-aligned bytes that go back to the system with their last owner. Throws ERR_OUT_OF_MEMORY, naming `what`.
std::shared_ptr<std::byte> allocate(size_t bytes, const std::string& what);

// Bytes of a tensor. Throws ERR_SHAPE where an extent is negative or the bytes overflow; so do the bytes that remain
// when extents of 0 are left out, which kernels multiply too.
int64_t checkedBytes(DType dtype, const Shape& shape);

class Buffer {
 public:
  Buffer(DType dtype, Shape shape, bool frozen);

  const DType dtype;
  const Shape shape;
  const bool frozen;

  size_t bytes() const { return static_cast<size_t>(sizeOf(shape)) * bytesOf(dtype); }
  std::byte* data() const { return data_.get(); }

  // The packed copy under `key`, made by `make` on first use. Only for frozen buffers.
  std::shared_ptr<void> packed(const std::string& key, const std::function<std::shared_ptr<void>()>& make);
  // Drops packed copies: called after the bytes were written.
  void touch();

 private:
  std::shared_ptr<std::byte> data_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<void>> packs_;
};

}  // namespace refl
