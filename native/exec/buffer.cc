#include "exec/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "exec/status.h"

namespace refl {

// Fresh pages cost nothing until they are touched, so neither a weight that a file will fill nor the null device's
// arena is written twice, or at all; unmapping returns them at once, which free() would leave to the allocator's mood.
// Touching memory that the system has at hand takes 0.11 s of a core for a GiB in huge pages, 0.45 s in small ones. (In
// a virtual machine whose host must find the memory first, it is 2.5 s in either.)
std::shared_ptr<std::byte> allocate(size_t bytes, const std::string& what) {
  // Linux places a mapping at a huge page's start only where it is as long as whole ones; the last few bytes are not
  // worth one.
  constexpr size_t huge = size_t{2} << 20;
  const size_t whole = bytes / huge * huge;
  const size_t length = std::max<size_t>(whole ? whole + (bytes > whole ? huge : 0) : bytes, 1);
  void* p = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    throw Error("ERR_OUT_OF_MEMORY", "cannot allocate " + std::to_string(bytes) + " bytes for " + what);
  }
  if (whole) madvise(p, whole, MADV_HUGEPAGE);  // a wish: without huge pages all works as well
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
      kept_(allocate(static_cast<size_t>(checkedBytes(dtype, shape)), "a parameter " + describe(dtype, shape))) {}

std::shared_ptr<std::byte> Buffer::resident() { return kept_ ? kept_ : held_.lock(); }

std::shared_ptr<std::byte> Buffer::room() { return allocate(bytes(), "a parameter " + describe(dtype, shape)); }

std::shared_ptr<std::byte> Buffer::plain() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<std::byte> bytes = resident();
  if (!bytes) {
    bytes = room();
    file_->read(0, sizeOf(shape), bytes.get());
    held_ = bytes;
  }
  return bytes;
}

Values Buffer::values() {
  std::lock_guard<std::mutex> lock(mutex_);
  return {*this, resident(), file_};
}

void Buffer::write(const std::byte* from) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    kept_ = resident();
    if (!kept_) kept_ = room();
    std::memcpy(kept_.get(), from, bytes());
    file_ = nullptr;
  }
  dropPacks();
}

void Buffer::load(std::shared_ptr<const FileValues> file) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    std::shared_ptr<std::byte> bytes = resident();
    const bool held = bytes.use_count() > (kept_ ? 2 : 1);
    if (frozen && !held && !file->mayRefuse()) {
      kept_ = nullptr;
      file_ = std::move(file);
    } else {
      if (!bytes) bytes = room();
      file->read(0, sizeOf(shape), bytes.get());
      kept_ = std::move(bytes);
      file_ = nullptr;
    }
  }
  dropPacks();
}

std::shared_ptr<Pack> Buffer::pack(const std::string& key, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<Pack>& known = packs_[key];
  std::shared_ptr<Pack> pack = known.lock();
  if (!pack) known = pack = std::make_shared<Pack>(shared_from_this(), bytes);
  return pack;
}

// A pack that is being made holds its own lock and waits for the buffer's, so these are not taken together here.
void Buffer::dropPacks() {
  std::vector<std::shared_ptr<Pack>> packs;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [key, pack] : packs_) packs.push_back(pack.lock());
  }
  for (const auto& pack : packs) {
    if (pack) pack->drop();
  }
}

void Values::load() {
  owner_ = buffer_->plain();
  bytes_ = owner_.get();
}

std::shared_ptr<std::byte> Pack::get(const std::function<void(Values&, std::byte*)>& make) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!copy_) {
    auto copy = allocate(bytes, "a packed weight");
    Values values = buffer_->values();
    make(values, copy.get());
    copy_ = std::move(copy);
  }
  return copy_;
}

void Pack::drop() {
  std::lock_guard<std::mutex> lock(mutex_);
  copy_ = nullptr;
}

}  // namespace refl
