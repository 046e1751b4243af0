#pragma once
// One CUDA device as the library drives it: memory, copies through pinned staging, one stream, segments as graphs. All
// calls come from one thread at a time.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

struct ReflCudaRecording {
  bool launched = false;
  cudaGraphExec_t graph = nullptr;
};

namespace refl::cuda {

class Device {
 public:
  // Throws ERR_DEVICE.
  explicit Device(int index) : Device(index, nullptr) { open(); }  // what open() leaves when it throws, ~Device frees
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device();

  const std::string& description() const { return description_; }
  cudaStream_t stream() const { return stream_; }

  // Zeroed bytes. Throws ERR_OUT_OF_MEMORY with the bytes needed and free.
  void* allocate(size_t bytes, const std::string& what);
  void release(void* at);

  // Copies after all that was launched before, in parts through pinned memory, so that the copies themselves need not
  // lock the caller's pages. Both return when `from` and `to` are the caller's again.
  void upload(void* to, const void* from, size_t bytes);
  void download(void* to, const void* from, size_t bytes);

  // Runs a segment, unless `launches` returns false: its launches at the first run (where kernels load and attributes
  // are set), recorded as a graph at the second, replayed from then on. Before, waits for the segment before the last,
  // so that what a caller does between segments (progress, abort) is at most two segments ahead of the device.
  template <class Launches>
  void segment(ReflCudaRecording& recording, Launches&& launches);
  void wait();

  // Throws unless `status` is success: ERR_OUT_OF_MEMORY, or ERR_DEVICE. After an error that CUDA does not recover from
  // (a fault of a kernel, a lost device) every later call throws ERR_DEVICE too.
  void check(cudaError_t status, const char* doing);

 private:
  Device(int index, std::nullptr_t) : index_(index) {}
  void open();
  void pace();
  void beginCapture();
  cudaGraphExec_t endCapture(bool wanted);

  const int index_;
  std::string description_, lost_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t done_[2] = {}, copied_[2] = {};
  std::byte* staging_ = nullptr;
  unsigned segments_ = 0;
};

template <class Launches>
void Device::segment(ReflCudaRecording& recording, Launches&& launches) {
  pace();
  if (!recording.graph && !recording.launched) {
    if (!launches()) return;
    recording.launched = true;
  } else {
    if (!recording.graph) {
      beginCapture();
      const bool fine = launches();
      recording.graph = endCapture(fine);
      if (!fine) return;
    }
    check(cudaGraphLaunch(recording.graph, stream_), "replaying a segment");
  }
  check(cudaEventRecord(done_[segments_++ % 2], stream_), "running a segment");
}

}  // namespace refl::cuda
