#include "exec/buffer.h"

#include <algorithm>
#include <vector>

#include "exec/backend.h"
#include "exec/status.h"

namespace refl {

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

Buffer::Buffer(std::shared_ptr<Backend> backend, DType dtype_, Shape shape_, bool frozen_, DType packed_)
    : dtype(dtype_), packed(packed_), shape(std::move(shape_)), frozen(frozen_), backend_(std::move(backend)) {
  checkedBytes(dtype, shape);
  if (packed != dtype && !(dtype == DType::f32 && isHalf(packed))) {
    throw Error("ERR_DTYPE", describe(dtype, shape) + " cannot be kept packed as " + describe(packed, {}));
  }
  // A device's memory is for its own thread to ask for, so there it waits for the first use.
  if (backend_->isHost()) kept_ = room();
}

std::shared_ptr<std::byte> Buffer::resident() { return kept_ ? kept_ : held_.lock(); }

std::shared_ptr<std::byte> Buffer::room() {
  return backend_->allocate(bytes(), "a parameter " + describe(dtype, shape));
}

void Buffer::fill(const FileValues& file, std::byte* to) {
  const int64_t count = sizeOf(shape);
  if (backend_->isHost()) return file.read(0, count, to);
  constexpr int64_t kBlock = int64_t{4} << 20;
  const auto width = static_cast<int64_t>(bytesOf(dtype));
  std::vector<std::byte> block(static_cast<size_t>(std::min(count, kBlock) * width));
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t part = std::min(kBlock, count - first);
    file.read(first, part, block.data());
    backend_->upload(to + first * width, block.data(), static_cast<size_t>(part * width));
  }
}

std::shared_ptr<std::byte> Buffer::plain() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<std::byte> bytes = resident();
  if (!bytes) {
    bytes = room();
    if (file_) {
      fill(*file_, bytes.get());
      held_ = bytes;
    } else {
      kept_ = bytes;
    }
  }
  return bytes;
}

std::vector<std::byte> Buffer::read() {
  const std::shared_ptr<std::byte> bytes = plain();
  std::vector<std::byte> copy(this->bytes());
  backend_->download(copy.data(), bytes.get(), copy.size());
  return copy;
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
    backend_->upload(kept_.get(), from, bytes());
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
      fill(*file, bytes.get());
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
    auto copy = buffer_->backend().allocate(bytes, "a packed weight");
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
