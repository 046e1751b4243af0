// Streams are queues that run when somebody waits for them, on the thread that waits. One lock guards all.
//
// The environment says what may happen, read at each call, so that a test can change it between two:
//   REFL_EMU_DEVICES   how many devices there are (1), "old": the driver is too old, "driver": there is none, or "none"
//   REFL_EMU_ARCH      the device's compute capability, as 75 (90)
//   REFL_EMU_MEMORY    bytes of memory it has (8 GiB)
//   REFL_EMU_FAIL      "launch N" loses the device at the Nth launch from now on, "copy N" at the Nth copy; "image N"
//                      finds no code for the device at the Nth
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cuda_runtime_api.h"
#include "emulator.h"

namespace {

using Work = std::function<cudaError_t()>;

std::recursive_mutex lock;
std::map<void*, size_t> device, pinned;
std::set<cudaStream_t> streams;
size_t used = 0;
cudaError_t lost = cudaSuccess;
std::string fault;

const char* setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

size_t totalMemory() { return std::strtoull(setting("REFL_EMU_MEMORY", "8589934592"), nullptr, 10); }

// Counts down what REFL_EMU_FAIL names; a new value of the variable starts anew.
bool fails(const char* kind) {
  static std::string seen;
  static long left = 0;
  const std::string now = setting("REFL_EMU_FAIL", "");
  if (now != seen) {
    seen = now;
    const size_t space = now.find(' ');
    left = space == std::string::npos ? 0 : std::atol(now.c_str() + space);
  }
  if (seen.rfind(kind, 0) != 0 || left == 0) return false;
  return --left == 0;
}

cudaError_t lose(cudaError_t status, std::string why) {
  lost = status;
  fault = std::move(why);
  return status;
}

// `bytes` from `at` lie inside one allocation of `in`.
bool inside(const std::map<void*, size_t>& in, const void* at, size_t bytes) {
  auto next = in.upper_bound(const_cast<void*>(at));
  if (next == in.begin()) return false;
  const auto& [start, size] = *--next;
  return static_cast<const char*>(at) + bytes <= static_cast<const char*>(start) + size;
}

void* aligned(size_t bytes) { return std::aligned_alloc(256, std::max<size_t>((bytes + 255) / 256 * 256, 256)); }

}  // namespace

struct CUstream_st {
  std::deque<Work> queue;
  std::unique_ptr<std::vector<Work>> capture;

  cudaError_t drain(uint64_t until) {
    while (done < until && !queue.empty()) {
      const Work work = std::move(queue.front());
      queue.pop_front();
      done++;
      const cudaError_t status = work();
      if (status != cudaSuccess) return status;
    }
    return lost;
  }
  cudaError_t add(Work work) {
    if (lost != cudaSuccess) return lost;
    if (capture) {
      capture->push_back(std::move(work));
    } else {
      queue.push_back(std::move(work));
      added++;
    }
    return cudaSuccess;
  }
  uint64_t added = 0, done = 0;
};
struct CUevent_st {
  cudaStream_t stream = nullptr;
  uint64_t at = 0;
};
struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};

namespace {

// A task whose arguments outlive the call that submitted it.
struct Kept {
  Kept(const simt::emu::Task& from) : task(from) { task.arguments = from.clone(from.arguments); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  ~Kept() { task.release(task.arguments); }
  simt::emu::Task task;
};

cudaError_t submit(const simt::Launch& at, const simt::emu::Task& task) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  // What has no code fails where it is launched, and not on the device.
  if (fails("image")) return cudaErrorNoKernelImageForDevice;
  const auto kept = std::make_shared<Kept>(task);
  return at.stream->add([at, kept] {
    if (fails("launch")) return lose(cudaErrorLaunchFailure, "as REFL_EMU_FAIL asks");
    const cudaError_t status = simt::emu::execute(at, kept->task);
    return status == cudaSuccess ? status : lose(status, simt::emu::takeFault());
  });
}

[[maybe_unused]] const bool ready = [] {
  simt::emu::onSubmit(submit);
  simt::emu::options().threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  simt::emu::options().sharedLimit = (std::atoi(setting("REFL_EMU_ARCH", "90")) >= 90 ? 227 : 99) << 10;
  return true;
}();

}  // namespace

const char* cudaGetErrorName(cudaError_t status) {
  switch (static_cast<int>(status)) {
    case 0:
      return "cudaSuccess";
    case 1:
      return "cudaErrorInvalidValue";
    case 2:
      return "cudaErrorMemoryAllocation";
    case 9:
      return "cudaErrorInvalidConfiguration";
    case 35:
      return "cudaErrorInsufficientDriver";
    case 100:
      return "cudaErrorNoDevice";
    case 101:
      return "cudaErrorInvalidDevice";
    case 209:
      return "cudaErrorNoKernelImageForDevice";
    case 719:
      return "cudaErrorLaunchFailure";
    default:
      return "an error of the stand-in";
  }
}

const char* cudaGetErrorString(cudaError_t status) {
  if (status == cudaErrorInsufficientDriver) return "CUDA driver version is insufficient for CUDA runtime version";
  return status == lost && !fault.empty() ? fault.c_str() : "as emulated";
}

cudaError_t cudaGetLastError() { return lost; }

cudaError_t cudaDriverGetVersion(int* version) {
  const std::string wanted = setting("REFL_EMU_DEVICES", "1");
  *version = wanted == "driver" ? 0 : wanted == "old" ? 12040 : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  const std::string wanted = setting("REFL_EMU_DEVICES", "1");
  if (wanted == "driver" || wanted == "old") return cudaErrorInsufficientDriver;
  if (wanted == "none") return cudaErrorNoDevice;
  *count = std::atoi(wanted.c_str());
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  const int arch = std::atoi(setting("REFL_EMU_ARCH", "90"));
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated device");
  properties->major = arch / 10;
  properties->minor = arch % 10;
  properties->totalGlobalMem = totalMemory();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  return status != cudaSuccess ? status : index < count ? lost : cudaErrorInvalidDevice;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = totalMemory();
  *free = *total > used ? *total - used : 0;
  return lost;
}

cudaError_t cudaMalloc(void** at, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (lost != cudaSuccess) return lost;
  if (used + bytes > totalMemory()) return cudaErrorMemoryAllocation;
  *at = aligned(bytes);
  if (!*at) return cudaErrorMemoryAllocation;
  std::memset(*at, 0xff, bytes);
  device[*at] = bytes;
  used += bytes;
  simt::emu::registerGlobal(*at, bytes);
  return cudaSuccess;
}

// Like CUDA's, it waits for the device: what is queued may use the memory.
cudaError_t cudaFree(void* at) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  for (cudaStream_t stream : streams) stream->drain(stream->added);
  const auto found = device.find(at);
  if (found == device.end()) return at ? cudaErrorInvalidValue : cudaSuccess;
  used -= found->second;
  device.erase(found);
  simt::emu::unregisterGlobal(at);
  std::free(at);
  return lost;
}

cudaError_t cudaMallocHost(void** at, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  *at = aligned(bytes);
  if (!*at) return cudaErrorMemoryAllocation;
  pinned[*at] = bytes;
  return lost;
}

cudaError_t cudaFreeHost(void* at) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (!at) return cudaSuccess;
  pinned.erase(at);
  std::free(at);
  return lost;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  const auto& source = kind == cudaMemcpyHostToDevice ? pinned : device;
  const auto& target = kind == cudaMemcpyDeviceToHost ? pinned : device;
  if (!inside(source, from, bytes) || !inside(target, to, bytes)) return cudaErrorInvalidValue;
  return stream->add([=] {
    if (fails("copy")) return lose(cudaErrorLaunchFailure, "as REFL_EMU_FAIL asks");
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (!inside(device, at, bytes)) return cudaErrorInvalidValue;
  return stream->add([=] {
    std::memset(at, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  *stream = new CUstream_st();
  streams.insert(*stream);
  return lost;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  streams.erase(stream);
  delete stream;
  return lost;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (stream->capture) return cudaErrorStreamCaptureUnsupported;
  return stream->drain(stream->added);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st();
  return lost;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return lost;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (stream->capture) return cudaErrorStreamCaptureUnsupported;
  *event = {stream, stream->added};
  return lost;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  return event->stream ? event->stream->drain(event->at) : lost;
}

// Emulated time means nothing: all that is timed takes a millisecond.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (!begin->stream || !end->stream || end->at > end->stream->done) return cudaErrorInvalidValue;
  *milliseconds = 1;
  return lost;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (stream->capture) return cudaErrorStreamCaptureUnsupported;
  stream->capture = std::make_unique<std::vector<Work>>();
  return lost;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (!stream->capture) return cudaErrorStreamCaptureInvalidated;
  *graph = new CUgraph_st{std::move(*stream->capture)};
  stream->capture = nullptr;
  return lost;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return lost;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return lost;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  for (const Work& work : exec->work) {
    const cudaError_t status = stream->add(work);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return lost;
}
