#include "harness.h"

#include <chrono>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#ifndef __CUDACC__
#include "emulator.h"
#endif

namespace harness {
namespace {

constexpr unsigned char kGuard = 0xc9;
constexpr unsigned char kPoison[2] = {0xa5, 0xff};  // repeated: a NaN in float64, float32, bf16 and f16

std::vector<std::pair<std::string, std::function<void()>>>& table() {
  static std::vector<std::pair<std::string, std::function<void()>>> cases;
  return cases;
}

std::string found;
double largest;  // the largest error of the running case

// What the emulator and a device do differently.
#ifdef __CUDACC__
constexpr size_t kCanary = 256;
cudaError_t finish(cudaError_t status) { return status == cudaSuccess ? cudaDeviceSynchronize() : status; }
std::string launchFault() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}
char* allocate(size_t bytes) {
  void* at = nullptr;
  return cudaMallocManaged(&at, bytes) == cudaSuccess ? static_cast<char*>(at) : nullptr;
}
void release(char* at) { cudaFree(at); }
void tell(const void*, size_t) {}
void forget(const void*) {}
#else
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kCanary = 0;  // the allocator's own red zones begin right at the ends
#else
constexpr size_t kCanary = 256;
#endif
cudaError_t finish(cudaError_t status) { return status; }
std::string launchFault() { return simt::emu::takeFault(); }
char* allocate(size_t bytes) {
  void* at = nullptr;
  return posix_memalign(&at, 256, bytes) ? nullptr : static_cast<char*>(at);
}
void release(char* at) { free(at); }
void tell(const void* at, size_t bytes) { simt::emu::registerGlobal(at, bytes); }
void forget(const void* at) { simt::emu::unregisterGlobal(at); }
#endif

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + '"';
}

bool run(const std::string& name, const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  std::string problem;
  found.clear();
  largest = 0;
  try {
    body();
  } catch (const std::exception& error) {
    problem = error.what();
  }
  if (problem.empty()) problem = launchFault();
  if (problem.empty()) problem = found;
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  std::printf("{\"case\":%s,\"ok\":%s,\"ms\":%.1f,\"error\":%.3g%s%s}\n", quoted(name).c_str(),
              problem.empty() ? "true" : "false", ms, std::min(largest, 1e300),  // JSON has no infinity
              problem.empty() ? "" : ",\"problem\":", problem.empty() ? "" : quoted(problem).c_str());
  std::fflush(stdout);
  return problem.empty();
}

}  // namespace

Cases::Cases(std::initializer_list<std::pair<std::string, std::function<void()>>> list) {
  for (const auto& [name, body] : list) addCase(name, body);
}
void addCase(std::string name, std::function<void()> body) { table().emplace_back(std::move(name), std::move(body)); }

void fail(const char* format, ...) {
  char line[2048];
  va_list list;
  va_start(list, format);
  vsnprintf(line, sizeof line, format, list);
  va_end(list);
  throw std::runtime_error(line);
}

void check(cudaError_t status) {
  if (finish(status) == cudaSuccess) return;
  const std::string fault = launchFault();
  fail("%s", fault.empty() ? "the launch failed" : fault.c_str());
}

void allowShared([[maybe_unused]] size_t bytes) {
#ifndef __CUDACC__
  simt::emu::options().sharedLimit = bytes;
#endif
}

std::vector<double> uniform(size_t count, double low, double high, uint64_t seed) {
  std::vector<double> values(count);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (double& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint64_t z = state ^ state >> 32;
    z *= 0xd6e8feb86659fd93u;
    value = low + (high - low) * static_cast<double>((z ^ z >> 32) >> 11) * 0x1p-53;
  }
  return values;
}

double relativeError(const std::vector<double>& actual, const std::vector<double>& exact) {
  if (actual.size() != exact.size()) fail("%zu values where %zu are expected", actual.size(), exact.size());
  double error = 0, scale = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double difference = actual[i] == exact[i] ? 0 : std::abs(actual[i] - exact[i]);
    if (!(difference <= error)) error = difference;
    if (std::isnan(error)) return error;
    if (std::isfinite(exact[i])) scale = std::max(scale, std::abs(exact[i]));
  }
  return error / (scale > 0 ? scale : 1);
}

void expectClose(const std::vector<double>& actual, const std::vector<double>& exact, double limit, const char* what) {
  const double error = relativeError(actual, exact);
  largest = std::max(largest, error);
  if (error <= limit) return;
  size_t worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double now = std::abs(actual[i] - exact[i]), most = std::abs(actual[worst] - exact[worst]);
    if (!std::isnan(most) && (std::isnan(now) || now > most)) worst = i;
  }
  fail("%s: error %.3g exceeds %.3g; element %zu is %.9g and should be %.9g", what, error, limit, worst, actual[worst],
       exact[worst]);
}

void expectNoWorse(const std::vector<double>& actual, const std::vector<double>& exact,
                   const std::vector<double>& naive, double factor, const char* what) {
  expectClose(actual, exact, factor * relativeError(naive, exact), what);
}

Memory::Memory(size_t bytes, size_t skip, bool poisoned) : bytes_(bytes) {
  const size_t before = kCanary + skip, total = before + bytes + kCanary;
  base_ = allocate(total ? total : 1);
  if (!base_) fail("no memory for %zu bytes", total);
  at_ = base_ + before;
  std::memset(base_, kGuard, before);
  std::memset(at_ + bytes, kGuard, kCanary);
  if (poisoned)
    for (size_t i = 0; i < bytes; ++i) at_[i] = static_cast<char>(kPoison[i % 2]);
  tell(at_, bytes);
}

Memory::~Memory() {
  forget(at_);
  for (const char* at = base_; at < at_; ++at)
    if (static_cast<unsigned char>(*at) != kGuard) {
      damage("canary overwritten: " + std::to_string(at_ - at) + " bytes before a buffer of " + std::to_string(bytes_));
      break;
    }
  for (size_t i = 0; i < kCanary; ++i)
    if (static_cast<unsigned char>(at_[bytes_ + i]) != kGuard) {
      damage("canary overwritten: " + std::to_string(i) + " bytes after a buffer of " + std::to_string(bytes_));
      break;
    }
  release(base_);
}

long Memory::unwritten(size_t size) const {
  for (size_t i = 0; i < bytes_; i += size) {
    bool same = size > 1;  // a byte of any value may be meant
    for (size_t k = 0; k < size; ++k) same = same && static_cast<unsigned char>(at_[i + k]) == kPoison[k % 2];
    if (same) return static_cast<long>(i / size);
  }
  return -1;
}

void damage(const std::string& what) {
  if (found.empty()) found = what;
}

}  // namespace harness

// Of a source made by mutate.ts: which of its mutations is in force.
int simtMutation = -1;

// DRIVER [--shard i/n] [--schedule seed] [--threads n] [--case name] [--match part of names] [--mutation n]
//        [--stop: at the first failure] [--list]
int main(int count, char** arguments) {
  using harness::table;
  unsigned shard = 0, shards = 1;
  const char *only = nullptr, *part = "";
  bool stop = false;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--list") {
      for (const auto& it : table()) std::printf("%s\n", it.first.c_str());
      return 0;
    }
    if (name == "--stop") {
      stop = true;
      continue;
    }
    if (i + 1 == count) {
      std::fprintf(stderr, "%s needs a value\n", name.c_str());
      return 2;
    }
    const char* value = arguments[++i];
    if (name == "--shard") std::sscanf(value, "%u/%u", &shard, &shards);
#ifndef __CUDACC__
    else if (name == "--schedule")
      simt::emu::options().schedule = std::strtoull(value, nullptr, 10);
    else if (name == "--threads")
      simt::emu::options().threads = std::atoi(value);
#endif
    else if (name == "--case")
      only = value;
    else if (name == "--match")
      part = value;
    else if (name == "--mutation")
      simtMutation = std::atoi(value);
    else {
      std::fprintf(stderr, "unknown argument %s\n", name.c_str());
      return 2;
    }
  }
  bool good = true;
  unsigned i = 0;
  for (const auto& [name, body] : table()) {
    if (only ? name != only : name.find(part) == std::string::npos || i++ % shards != shard) continue;
    good = harness::run(name, body) && good;
    if (stop && !good) break;
  }
  return good ? 0 : 1;
}
