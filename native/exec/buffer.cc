#include "exec/buffer.h"

#include <cstdlib>
#include <cstring>

#include "exec/status.h"

namespace refl {

std::string describe(DType dtype, const Shape& shape) {
  static const char* names[] = {"f32", "f64", "i32", "u8"};
  std::string text = std::string(names[static_cast<int>(dtype)]) + "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

std::shared_ptr<std::byte> allocate(size_t bytes, const std::string& what) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, rounded);
  if (!p) {
    throw Error("ERR_OUT_OF_MEMORY", "cannot allocate " + std::to_string(bytes) + " bytes for " + what);
  }
  return {static_cast<std::byte*>(p), [](std::byte* q) { std::free(q); }};
}

Buffer::Buffer(DType dtype_, Shape shape_, bool frozen_) : dtype(dtype_), shape(std::move(shape_)), frozen(frozen_) {
  data_ = allocate(bytes(), "a parameter " + describe(dtype, shape));
  std::memset(data_.get(), 0, bytes());
}

std::shared_ptr<void> Buffer::packed(const std::string& key, const std::function<std::shared_ptr<void>()>& make) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<void>& pack = packs_[key];
  if (!pack) pack = make();
  return pack;
}

void Buffer::touch() {
  std::lock_guard<std::mutex> lock(mutex_);
  packs_.clear();
}

}  // namespace refl
