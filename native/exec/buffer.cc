#include "exec/buffer.h"

#include <sys/mman.h>

#include <algorithm>

#include "exec/status.h"

namespace refl {

std::string describe(DType dtype, const Shape& shape) {
  static const char* names[] = {"f32", "f64", "i32", "u8"};
  std::string text = std::string(names[static_cast<int>(dtype)]) + "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

// Fresh pages cost nothing until they are touched, so neither a weight that a file will fill nor the null device's
// arena is written twice, or at all; unmapping returns them at once, which free() would leave to the allocator's mood.
// Huge pages (madvise) were tried: a first touch of 1 GiB took 0.16 s where the kernel had some at hand and 2.6 s where
// it had to compact memory for them, against 0.7 s without.
std::shared_ptr<std::byte> allocate(size_t bytes, const std::string& what) {
  const size_t length = std::max<size_t>(bytes, 1);
  void* p = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    throw Error("ERR_OUT_OF_MEMORY", "cannot allocate " + std::to_string(bytes) + " bytes for " + what);
  }
  return {static_cast<std::byte*>(p), [length](std::byte* q) { munmap(q, length); }};
}

int64_t checkedBytes(DType dtype, const Shape& shape) {
  int64_t bytes = static_cast<int64_t>(bytesOf(dtype));
  for (int64_t d : shape) {
    if (d < 0 || __builtin_mul_overflow(bytes, std::max<int64_t>(d, 1), &bytes)) {
      throw Error("ERR_SHAPE",
                  describe(dtype, shape) + " is no shape: an extent is negative, or there are too many bytes");
    }
  }
  return std::find(shape.begin(), shape.end(), 0) == shape.end() ? bytes : 0;
}

Buffer::Buffer(DType dtype_, Shape shape_, bool frozen_)
    : dtype(dtype_),
      shape(std::move(shape_)),
      frozen(frozen_),
      data_(allocate(static_cast<size_t>(checkedBytes(dtype, shape)), "a parameter " + describe(dtype, shape))) {}

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
