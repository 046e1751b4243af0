#include "backend/device.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "exec/status.h"

namespace refl::cuda {
namespace {

// Two parts, of which one is copied by the host while the other is copied by the device.
constexpr size_t kPart = size_t{4} << 20;

// The library holds no code that the device could run: it was built for others.
bool isForeign(cudaError_t status) {
  const cudaError_t foreign[] = {cudaErrorNoKernelImageForDevice, cudaErrorInvalidPtx, cudaErrorUnsupportedPtxVersion,
                                 cudaErrorJitCompilerNotFound};
  return std::find(std::begin(foreign), std::end(foreign), status) != std::end(foreign);
}

// Errors after which the context is gone, by CUDA's documentation of cudaError_t. Others leave the device usable.
bool isSticky(cudaError_t status) {
  const cudaError_t passing[] = {
      cudaErrorInvalidValue,  cudaErrorMemoryAllocation,         cudaErrorInvalidConfiguration,
      cudaErrorInvalidDevice, cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated};
  return std::find(std::begin(passing), std::end(passing), status) == std::end(passing);
}

}  // namespace

void Device::open() {
  check(cudaSetDevice(index_), "choosing the device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index_), "asking for its properties");
  char text[320];
  std::snprintf(text, sizeof text, "%s (sm_%d%d, %.1f GB)", properties.name, properties.major, properties.minor,
                static_cast<double>(properties.totalGlobalMem) / 1e9);
  description_ = text;
  if (properties.major < 8) {
    throw Error("ERR_DEVICE", description_ + " is older than the kernels, which need sm_80 or later");
  }
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  for (cudaEvent_t* event : {&done_[0], &done_[1], &copied_[0], &copied_[1]}) {
    // The host sleeps in a wait: a spinning thread would take the core that the event loop needs.
    check(cudaEventCreateWithFlags(event, cudaEventDisableTiming | cudaEventBlockingSync), "making an event");
  }
  void* staging = nullptr;
  check(cudaMallocHost(&staging, 2 * kPart), "allocating pinned memory");
  staging_ = static_cast<std::byte*>(staging);
}

Device::~Device() {
  cudaSetDevice(index_);
  if (stream_) cudaStreamSynchronize(stream_);
  cudaFreeHost(staging_);
  for (cudaEvent_t event : {done_[0], done_[1], copied_[0], copied_[1]}) {
    if (event) cudaEventDestroy(event);
  }
  if (stream_) cudaStreamDestroy(stream_);
}

void Device::check(cudaError_t status, const char* doing) {
  if (!lost_.empty()) throw Error("ERR_DEVICE", lost_);
  if (status == cudaSuccess) return;
  const std::string what =
      std::string(doing) + ": " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")";
  cudaGetLastError();  // the runtime keeps the last error and would report it again
  if (status == cudaErrorMemoryAllocation) throw Error("ERR_OUT_OF_MEMORY", what);
  if (isForeign(status)) {
    throw Error("ERR_DEVICE", what + ": the library was built without kernels for the " + description_ +
                                  "; build it for that with npm run build:cuda, or use cpu");
  }
  if (isSticky(status)) {
    lost_ = "the device was lost while " + what + "; it is unusable in this process from now on, use cpu";
    throw Error("ERR_DEVICE", lost_);
  }
  throw Error("ERR_DEVICE", what);
}

void* Device::allocate(size_t bytes, const std::string& what) {
  check(cudaSetDevice(index_), "choosing the device");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for free memory");
  const auto refuse = [&] {
    throw Error("ERR_OUT_OF_MEMORY", what + " needs " + std::to_string(bytes) + " bytes of the device's memory, " +
                                         std::to_string(free) + " of " + std::to_string(total) +
                                         " are free; use a smaller image or batch, or cpu");
  };
  if (bytes > free) refuse();
  void* at = nullptr;
  const cudaError_t status = cudaMalloc(&at, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    refuse();
  }
  check(status, "allocating memory");
  const cudaError_t zeroed = cudaMemsetAsync(at, 0, bytes, stream_);
  if (zeroed != cudaSuccess) cudaFree(at);
  check(zeroed, "zeroing memory");
  return at;
}

void Device::release(void* at) {
  cudaSetDevice(index_);
  cudaFree(at);
}

void Device::upload(void* to, const void* from, size_t bytes) {
  for (size_t done = 0, part = 0; done < bytes; part++) {
    const size_t count = std::min(kPart, bytes - done);
    std::byte* stage = staging_ + part % 2 * kPart;
    check(cudaEventSynchronize(copied_[part % 2]), "waiting for a copy");
    std::memcpy(stage, static_cast<const std::byte*>(from) + done, count);
    check(cudaMemcpyAsync(static_cast<std::byte*>(to) + done, stage, count, cudaMemcpyHostToDevice, stream_),
          "copying to the device");
    check(cudaEventRecord(copied_[part % 2], stream_), "copying to the device");
    done += count;
  }
}

void Device::download(void* to, const void* from, size_t bytes) {
  const auto fetch = [&](size_t part) {
    const size_t done = part * kPart, count = std::min(kPart, bytes - done);
    check(cudaMemcpyAsync(staging_ + part % 2 * kPart, static_cast<const std::byte*>(from) + done, count,
                          cudaMemcpyDeviceToHost, stream_),
          "copying from the device");
    check(cudaEventRecord(copied_[part % 2], stream_), "copying from the device");
  };
  // Uploads under way read the staging memory: these copies are queued behind them on the same stream.
  const size_t parts = (bytes + kPart - 1) / kPart;
  for (size_t part = 0; part < std::min<size_t>(parts, 2); part++) fetch(part);
  for (size_t part = 0; part < parts; part++) {
    check(cudaEventSynchronize(copied_[part % 2]), "copying from the device");
    const size_t done = part * kPart;
    std::memcpy(static_cast<std::byte*>(to) + done, staging_ + part % 2 * kPart, std::min(kPart, bytes - done));
    if (part + 2 < parts) fetch(part + 2);
  }
}

void Device::pace() {
  check(cudaSetDevice(index_), "choosing the device");
  check(cudaEventSynchronize(done_[segments_ % 2]), "running a segment");
}

// Thread-local: only this thread's calls that a capture forbids are errors.
void Device::beginCapture() {
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a segment");
}

cudaGraphExec_t Device::endCapture(bool wanted) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  cudaError_t status = cudaStreamEndCapture(stream_, &graph);
  if (wanted && status == cudaSuccess) status = cudaGraphInstantiate(&ready, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  if (wanted) check(status, "recording a segment");
  return ready;
}

void Device::wait() { check(cudaStreamSynchronize(stream_), "running a program"); }

}  // namespace refl::cuda
