#pragma once
// What a kind of device brings: memory, and kernels that run in it. All functions but the destructor are called by the
// device's executor thread, and by the JavaScript thread where the memory is the host's own.
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "exec/kernel.h"

namespace refl {

class Backend {
 public:
  virtual ~Backend() = default;

  // Throws ERR_PROGRAM on an operator without a kernel, or what the binder throws.
  virtual Bound bind(const NodeSpec& node) = 0;

  // Whether the device's memory is the host's: its bytes may be read and written in place.
  virtual bool isHost() const = 0;
  // Zeroed bytes that go back with their last owner, aligned to 256 at least. Throws ERR_OUT_OF_MEMORY, naming `what`.
  virtual std::shared_ptr<std::byte> allocate(size_t bytes, const std::string& what) = 0;
  // Copies between the host and the device, after all that was launched before; `from` and `to` are free on return.
  virtual void upload(std::byte* to, const std::byte* from, size_t bytes) = 0;
  virtual void download(std::byte* to, const std::byte* from, size_t bytes) = 0;

  // Runs a segment: calls `launch`, which runs its kernels, or replays what it recorded of an earlier call in
  // `recording`, which starts empty. The same recording always means the same kernels at the same addresses. May return
  // before the kernels have ended, but not long before those of the segment before it.
  virtual void run(std::shared_ptr<void>& recording, const std::function<void()>& launch) = 0;
  // Waits for all that was launched. Throws what went wrong there.
  virtual void wait() = 0;
};

// Kernels of a host backend by operator name.
using Kernels = std::map<std::string, Bind>;

// The host's memory, where kernels compute before they return: the CPU and the null device.
std::shared_ptr<Backend> hostBackend(const Kernels& kernels);

}  // namespace refl
