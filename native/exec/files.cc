#include "exec/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <vector>

#include "exec/status.h"

namespace refl {
namespace {

class File {
 public:
  explicit File(const std::string& path) : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) throw Error("ERR_WEIGHTS", path + ": cannot open: " + std::strerror(errno));
  }
  ~File() { close(fd_); }
  File(const File&) = delete;

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
  std::string path_;
  int fd_;
};

float fromBits(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

float fromHalf(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ffu;
  if (exponent == 31) return fromBits(sign | 0x7f800000u | mantissa << 13);
  if (exponent) return fromBits(sign | (exponent + 112) << 23 | mantissa << 13);
  const float tiny = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal or zero
  return sign ? -tiny : tiny;
}

// Streams elements through a fixed block, so a conversion never doubles the memory of a large tensor.
template <class From, class To, class Convert>
void stream(const File& file, uint64_t offset, To* to, int64_t count, Convert convert) {
  constexpr int64_t block = 1 << 16;
  std::vector<From> staging(static_cast<size_t>(std::min(count, block)));
  for (int64_t done = 0; done < count; done += block) {
    const int64_t n = std::min(block, count - done);
    file.read(staging.data(), static_cast<size_t>(n) * sizeof(From),
              offset + static_cast<uint64_t>(done) * sizeof(From));
    for (int64_t i = 0; i < n; i++) to[done + i] = convert(staging[static_cast<size_t>(i)]);
  }
}

// False where `type` is no floating one.
template <class To>
bool readFloats(const File& file, uint64_t offset, const std::string& type, To* to, int64_t n) {
  if (type == "F32") {
    stream<float>(file, offset, to, n, [](float v) { return static_cast<To>(v); });
  } else if (type == "F64") {
    stream<double>(file, offset, to, n, [](double v) { return static_cast<To>(v); });
  } else if (type == "F16") {
    stream<uint16_t>(file, offset, to, n, [](uint16_t v) { return static_cast<To>(fromHalf(v)); });
  } else if (type == "BF16") {
    stream<uint16_t>(file, offset, to, n, [](uint16_t v) { return static_cast<To>(fromBits(uint32_t{v} << 16)); });
  } else {
    return false;
  }
  return true;
}

}  // namespace

void readInto(Buffer& buffer, const std::string& path, uint64_t offset, const std::string& type) {
  const File file(path);
  const int64_t n = sizeOf(buffer.shape);
  std::byte* to = buffer.data();
  const bool same = (buffer.dtype == DType::f32 && type == "F32") || (buffer.dtype == DType::f64 && type == "F64") ||
                    (buffer.dtype == DType::i32 && type == "I32") || (buffer.dtype == DType::u8 && type == "U8");
  bool known = true;
  if (same) {
    file.read(to, buffer.bytes(), offset);
  } else if (buffer.dtype == DType::f32) {
    known = readFloats(file, offset, type, reinterpret_cast<float*>(to), n);
  } else if (buffer.dtype == DType::f64) {
    known = readFloats(file, offset, type, reinterpret_cast<double*>(to), n);
  } else if (buffer.dtype == DType::i32 && type == "I64") {
    stream<int64_t>(file, offset, reinterpret_cast<int32_t*>(to), n, [&](int64_t v) {
      if (v < std::numeric_limits<int32_t>::min() || v > std::numeric_limits<int32_t>::max()) {
        throw Error("ERR_WEIGHTS", path + ": an I64 value does not fit into 32 bits");
      }
      return static_cast<int32_t>(v);
    });
  } else {
    known = false;
  }
  if (!known)
    throw Error("ERR_WEIGHTS", path + ": cannot read " + type + " values into " + describe(buffer.dtype, buffer.shape));
  buffer.touch();
}

}  // namespace refl
