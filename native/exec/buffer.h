#pragma once
// A persistent device buffer: a parameter, an optimizer moment, a constant. Of a frozen one kernels may keep packed
// copies (a weight in a product's panels). Where its values came from a file, its plain bytes exist only while a
// program reads them, so that a weight takes memory once.
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "exec/files.h"
#include "exec/tensor.h"

namespace refl {

// Bytes of a tensor. Throws ERR_SHAPE where an extent is negative or the bytes overflow; so do the bytes that remain
// when extents of 0 are left out, which kernels multiply too.
int64_t checkedBytes(DType dtype, const Shape& shape);

class Backend;
class Buffer;

// The values of a buffer while a packed copy is made of them. Methods throw ERR_WEIGHTS where a file must be read and
// cannot be.
class Values {
 public:
  explicit Values(const void* bytes) : bytes_(static_cast<const std::byte*>(bytes)) {}
  Values(Buffer& buffer, std::shared_ptr<std::byte> bytes, std::shared_ptr<const FileValues> file)
      : buffer_(&buffer), owner_(std::move(bytes)), bytes_(owner_.get()), file_(std::move(file)) {}

  // Values [first, first + count): where they lie in memory, or read into `room`. Several threads may call this at
  // once.
  template <class T>
  const T* part(int64_t first, int64_t count, T* room) const {
    if (bytes_) return reinterpret_cast<const T*>(bytes_) + first;
    file_->read(first, count, room);
    return room;
  }

  // All values, in memory for as long as this lives.
  template <class T>
  const T* all() {
    if (!bytes_) load();
    return reinterpret_cast<const T*>(bytes_);
  }

 private:
  void load();

  Buffer* buffer_ = nullptr;
  std::shared_ptr<std::byte> owner_;
  const std::byte* bytes_;  // null while they must be read
  std::shared_ptr<const FileValues> file_;
};

// A packed copy of a frozen buffer, shared by all programs that take it under the same key and gone with the last.
class Pack {
 public:
  Pack(std::shared_ptr<Buffer> buffer, size_t bytes) : bytes(bytes), buffer_(std::move(buffer)) {}

  const size_t bytes;

  // The copy; `make` writes it at the first call, and at the first after the buffer was written.
  std::shared_ptr<std::byte> get(const std::function<void(Values&, std::byte*)>& make);
  void drop();

 private:
  const std::shared_ptr<Buffer> buffer_;
  std::mutex mutex_;
  std::shared_ptr<std::byte> copy_;
};

class Buffer : public std::enable_shared_from_this<Buffer> {
 public:
  // Throws ERR_DTYPE where `packed` is neither `dtype` nor one of 16 bits for a float32.
  Buffer(std::shared_ptr<Backend> backend, DType dtype, Shape shape, bool frozen, DType packed);

  const DType dtype;
  // What packed copies keep values as: rounded to 16 bits they take half the memory. Plain bytes are of `dtype`.
  const DType packed;
  const Shape shape;
  const bool frozen;

  size_t bytes() const { return static_cast<size_t>(sizeOf(shape)) * bytesOf(dtype); }

  // The plain bytes: the same ones to all who hold them, read from the file when nobody does. Throws ERR_WEIGHTS.
  std::shared_ptr<std::byte> plain();
  Values values();
  // A copy of all values in the host's memory. Throws ERR_WEIGHTS.
  std::vector<std::byte> read();

  // Sets all values. What holds the plain bytes sees them, packed copies are made anew.
  void write(const std::byte* from);
  // Takes values from a file: a frozen buffer when they are wanted, any other now. Throws ERR_WEIGHTS.
  void load(std::shared_ptr<const FileValues> file);

  // The packed copy of `bytes` under `key`. Only for frozen buffers.
  std::shared_ptr<Pack> pack(const std::string& key, size_t bytes);

  Backend& backend() const { return *backend_; }

 private:
  std::shared_ptr<std::byte> resident();  // null where the values must be read
  std::shared_ptr<std::byte> room();
  void fill(const FileValues& file, std::byte* to);
  void dropPacks();

  const std::shared_ptr<Backend> backend_;
  std::mutex mutex_;
  std::shared_ptr<std::byte> kept_;  // null where `file_` has the values, and where all are still zero
  std::weak_ptr<std::byte> held_;    // the plain bytes of all who hold them
  std::shared_ptr<const FileValues> file_;
  std::map<std::string, std::weak_ptr<Pack>> packs_;
};

}  // namespace refl
