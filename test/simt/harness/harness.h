// What a kernel's tests are written with: buffers that notice what a kernel does around and inside them, comparisons,
// and a table of cases that main() runs, all of them or one shard.
//
//   static void small() {
//     Input<bf16> x(uniform(300, -1, 1, 7));
//     Output<bf16> y(300);                              // poisoned: an element never written fails the case
//     check(scale(x.data(), y.data(), 300, nullptr));   // a fault becomes the case's message
//     expectClose(y.values(), twice(x.values()), 1e-2, "y");
//   }
//   static const Cases cases = {{"300 elements", small}};
#pragma once
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "simt/launch.h"
#include "simt/types.h"

namespace harness {

using simt::bf16;
using simt::f16;

/** Registers cases when it is constructed; names are unique in a driver. */
struct Cases {
  Cases(std::initializer_list<std::pair<std::string, std::function<void()>>> list);
};
void addCase(std::string name, std::function<void()> body);

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
/** Fails the case with the emulator's report unless `status` is cudaSuccess. */
void check(cudaError_t status);

/** Lets blocks have more shared memory than the 99 KiB that sm_80's kernels keep to. */
void allowShared(size_t bytes);

/** Values in [low, high), the same for the same seed. */
std::vector<double> uniform(size_t count, double low, double high, uint64_t seed);

/** max|actual - exact| / max|exact|; NaN if any value is. */
double relativeError(const std::vector<double>& actual, const std::vector<double>& exact);
void expectClose(const std::vector<double>& actual, const std::vector<double>& exact, double limit, const char* what);
/** For 16-bit results: an error of at most `factor` times that of `naive`, a plain loop in the same type. */
void expectNoWorse(const std::vector<double>& actual, const std::vector<double>& exact,
                   const std::vector<double>& naive, double factor, const char* what);

/** The value of T nearest to x, as kernels round. */
template <class T>
double rounded(double x) {
  return simt::toFloat(simt::fromFloat<T>(static_cast<float>(x)));
}

/** For results that are rounded once: of float an error of at most `limit`, in 16 bits of `factor` times the
 * rounding's. */
template <class T>
void expectRounded(const std::vector<double>& actual, const std::vector<double>& exact, double limit, double factor,
                   const char* what) {
  if (sizeof(T) == 4) return expectClose(actual, exact, limit, what);
  std::vector<double> naive = exact;
  for (double& v : naive) v = rounded<T>(v);
  expectNoWorse(actual, exact, naive, factor, what);
}

/** Memory of exactly `bytes` at a multiple of 256 (plus `skip`), with canaries around it that its destructor looks at.
 */
class Memory {
 public:
  Memory(size_t bytes, size_t skip, bool poisoned);
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();
  char* at() const { return at_; }
  /** The element of `size` bytes that was never written, or -1. */
  long unwritten(size_t size) const;

 private:
  char *base_, *at_;
  size_t bytes_;
};
/** Notes what a destructor found; the case fails with the first. */
void damage(const std::string& what);

/** Elements of T (float, bf16, f16, double, int, uint8_t ...) in device memory; `skip` elements shift its address. */
template <class T>
class Buffer {
 public:
  size_t size() const { return size_; }
  T* data() const { return reinterpret_cast<T*>(memory_.at()); }
  T& operator[](size_t i) const { return data()[i]; }
  std::vector<double> values() const {
    std::vector<double> all(size_);
    for (size_t i = 0; i < size_; ++i) all[i] = toDouble(data()[i]);
    return all;
  }

 protected:
  Buffer(size_t size, size_t skip, bool poisoned)
      : size_(size), memory_(size * sizeof(T), skip * sizeof(T), poisoned) {}
  static double toDouble(T x) {
    if constexpr (std::is_class_v<T>)
      return simt::toFloat(x);
    else
      return static_cast<double>(x);
  }
  static T fromDouble(double x) {
    if constexpr (std::is_class_v<T>)
      return simt::fromFloat<T>(static_cast<float>(x));
    else
      return static_cast<T>(x);
  }
  size_t size_;
  Memory memory_;
};

/** What a kernel reads, or updates in place. */
template <class T>
class Input : public Buffer<T> {
 public:
  explicit Input(const std::vector<double>& values, size_t skip = 0) : Buffer<T>(values.size(), skip, false) {
    for (size_t i = 0; i < values.size(); ++i) (*this)[i] = Buffer<T>::fromDouble(values[i]);
  }
};

/** What a kernel must write in full. */
template <class T>
class Output : public Buffer<T> {
 public:
  explicit Output(size_t size, size_t skip = 0) : Buffer<T>(size, skip, true) {}
  ~Output() {
    const long missing = this->memory_.unwritten(sizeof(T));
    if (missing >= 0)
      damage("output never written: element " + std::to_string(missing) + " of " + std::to_string(this->size_));
  }
};

}  // namespace harness
