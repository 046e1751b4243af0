#include "exec/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>

#include "exec/half.h"
#include "exec/status.h"

namespace refl {

class File {
 public:
  // One descriptor a file, however many tensors are read from it, for as long as any of them may be read again.
  static std::shared_ptr<const File> shared(const std::string& path) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<const File>> files;
    std::lock_guard<std::mutex> lock(mutex);
    auto file = std::make_shared<const File>(path);
    const auto known = files.find(path);
    const auto before = known == files.end() ? nullptr : known->second.lock();
    if (before && before->same(file->opened_)) return before;
    for (auto it = files.begin(); it != files.end();) it = it->second.expired() ? files.erase(it) : std::next(it);
    files[path] = file;
    return file;
  }

  // Without O_NONBLOCK, opening a pipe would wait for its writer.
  explicit File(const std::string& path) : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd_ < 0) throw Error("ERR_WEIGHTS", path + ": cannot open: " + std::strerror(errno));
    if (fstat(fd_, &opened_) != 0 || !S_ISREG(opened_.st_mode)) {
      close(fd_);
      throw Error("ERR_WEIGHTS", path + ": is no regular file");
    }
  }
  ~File() { close(fd_); }
  File(const File&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return static_cast<uint64_t>(opened_.st_size); }

  // Whatever was read before this returns was read from the file as it was opened.
  void checkUnchanged() const {
    struct stat now;
    if (fstat(fd_, &now) != 0 || !same(now)) {
      throw Error("ERR_WEIGHTS", path_ +
                                     ": the file changed after its weights were loaded, and some are needed again; "
                                     "load them anew, and replace files in use by renaming, not by writing to them");
    }
  }

  void read(void* into, size_t bytes, uint64_t offset) const {
    auto* p = static_cast<char*>(into);
    while (bytes > 0) {
      const ssize_t n = pread(fd_, p, bytes, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw Error("ERR_WEIGHTS", path_ + ": cannot read: " + std::strerror(errno));
      if (n == 0)
        throw Error("ERR_WEIGHTS", path_ + ": the file ended early; it was cut short or is still being written");
      p += n;
      bytes -= static_cast<size_t>(n);
      offset += static_cast<uint64_t>(n);
    }
  }

 private:
  bool same(const struct stat& s) const {
    return s.st_dev == opened_.st_dev && s.st_ino == opened_.st_ino && s.st_size == opened_.st_size &&
           s.st_mtim.tv_sec == opened_.st_mtim.tv_sec && s.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec;
  }

  std::string path_;
  int fd_;
  struct stat opened_;
};

// How values of one stored type become those of a dtype.
struct Conversion {
  const char* fileType;
  DType dtype;
  size_t bytes;  // of a stored value
  bool mayRefuse;
  void (*read)(const File& file, uint64_t offset, void* to, int64_t count);
};

namespace {

template <size_t bytes>
void readPlain(const File& file, uint64_t offset, void* to, int64_t count) {
  file.read(to, static_cast<size_t>(count) * bytes, offset);
}

// Streams values through a fixed block, so a conversion never doubles the memory of a large tensor.
template <class From, class To, class Convert>
void stream(const File& file, uint64_t offset, void* to, int64_t count, Convert convert) {
  constexpr int64_t block = 1 << 14;
  From staging[block];
  for (int64_t done = 0; done < count; done += block) {
    const int64_t n = std::min(block, count - done);
    file.read(staging, static_cast<size_t>(n) * sizeof(From), offset + static_cast<uint64_t>(done) * sizeof(From));
    for (int64_t i = 0; i < n; i++) static_cast<To*>(to)[done + i] = convert(staging[i]);
  }
}

template <class From, class To>
void readNumbers(const File& file, uint64_t offset, void* to, int64_t count) {
  stream<From, To>(file, offset, to, count, [](From v) { return static_cast<To>(v); });
}

void readLong(const File& file, uint64_t offset, void* to, int64_t count) {
  stream<int64_t, int32_t>(file, offset, to, count, [&](int64_t v) {
    if (v < std::numeric_limits<int32_t>::min() || v > std::numeric_limits<int32_t>::max()) {
      throw Error("ERR_WEIGHTS", file.path() + ": an I64 value does not fit into 32 bits");
    }
    return static_cast<int32_t>(v);
  });
}

const Conversion conversions[] = {
    {"F32", DType::f32, 4, false, readPlain<4>},
    {"F64", DType::f32, 8, false, readNumbers<double, float>},
    {"F16", DType::f32, 2, false, readNumbers<Float16, float>},
    {"BF16", DType::f32, 2, false, readNumbers<BFloat16, float>},
    {"F32", DType::f64, 4, false, readNumbers<float, double>},
    {"F64", DType::f64, 8, false, readPlain<8>},
    {"F16", DType::f64, 2, false, readNumbers<Float16, double>},
    {"BF16", DType::f64, 2, false, readNumbers<BFloat16, double>},
    {"F32", DType::bf16, 4, false, readNumbers<float, BFloat16>},
    {"F64", DType::bf16, 8, false, readNumbers<double, BFloat16>},
    {"F16", DType::bf16, 2, false, readNumbers<Float16, BFloat16>},
    {"BF16", DType::bf16, 2, false, readPlain<2>},
    {"F32", DType::f16, 4, false, readNumbers<float, Float16>},
    {"F64", DType::f16, 8, false, readNumbers<double, Float16>},
    {"F16", DType::f16, 2, false, readPlain<2>},
    {"BF16", DType::f16, 2, false, readNumbers<BFloat16, Float16>},
    {"I32", DType::i32, 4, false, readPlain<4>},
    {"I64", DType::i32, 8, true, readLong},
    {"U8", DType::u8, 1, false, readPlain<1>},
};

}  // namespace

FileValues::FileValues(const std::string& path, uint64_t offset, const std::string& fileType, DType dtype,
                       int64_t count)
    : file_(File::shared(path)), offset_(offset) {
  conversion_ = std::find_if(std::begin(conversions), std::end(conversions),
                             [&](const Conversion& c) { return c.fileType == fileType && c.dtype == dtype; });
  if (conversion_ == std::end(conversions)) {
    throw Error("ERR_WEIGHTS", path + ": cannot read " + fileType + " values as " + describe(dtype, {count}));
  }
  const uint64_t bytes = static_cast<uint64_t>(count) * conversion_->bytes;
  if (bytes > file_->size() || offset > file_->size() - bytes) {
    throw Error("ERR_WEIGHTS", path + ": has " + std::to_string(file_->size()) + " bytes, too few for " +
                                   std::to_string(bytes) + " at byte " + std::to_string(offset) +
                                   "; it was cut short or is still being written");
  }
}

void FileValues::read(int64_t first, int64_t count, void* to) const {
  conversion_->read(*file_, offset_ + static_cast<uint64_t>(first) * conversion_->bytes, to, count);
  file_->checkUnchanged();
}

bool FileValues::mayRefuse() const { return conversion_->mayRefuse; }

}  // namespace refl
