#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "exec/backend.h"
#include "exec/status.h"

namespace refl {
namespace {

class HostBackend : public Backend {
 public:
  explicit HostBackend(const Kernels& kernels) : kernels_(kernels) {}

  Bound bind(const NodeSpec& node) override {
    const auto kernel = kernels_.find(node.op->name);
    if (kernel == kernels_.end()) {
      throw Error("ERR_PROGRAM", std::string(node.op->name) + " has no kernel on this device");
    }
    return kernel->second(node);
  }

  bool isHost() const override { return true; }

  // Fresh pages cost nothing until they are touched, so neither a weight that a file will fill nor the null device's
  // arena is written twice, or at all; unmapping returns them at once, which free() would leave to the allocator's
  // mood. Touching memory that the system has at hand takes 0.11 s of a core for a GiB in huge pages, 0.45 s in small
  // ones. (In a virtual machine whose host must find the memory first, it is 2.5 s in either.)
  std::shared_ptr<std::byte> allocate(size_t bytes, const std::string& what) override {
    // Linux places a mapping at a huge page's start only where it is as long as whole ones; the last few bytes are not
    // worth one.
    constexpr size_t huge = size_t{2} << 20;
    const size_t whole = bytes / huge * huge;
    const size_t length = std::max<size_t>(whole ? whole + (bytes > whole ? huge : 0) : bytes, 1);
    void* p = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      throw Error("ERR_OUT_OF_MEMORY", "cannot allocate " + std::to_string(bytes) + " bytes for " + what);
    }
    if (whole) madvise(p, whole, MADV_HUGEPAGE);  // a wish: without huge pages all works as well
    return {static_cast<std::byte*>(p), [length](std::byte* q) { munmap(q, length); }};
  }

  void upload(std::byte* to, const std::byte* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(std::byte* to, const std::byte* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void run(std::shared_ptr<void>&, const std::function<void()>& launch) override { launch(); }
  void wait() override {}

 private:
  const Kernels& kernels_;
};

}  // namespace

std::shared_ptr<Backend> hostBackend(const Kernels& kernels) { return std::make_shared<HostBackend>(kernels); }

}  // namespace refl
