// A device of the CUDA library as the backend of programs: errors become exceptions, handles owners.
#include <exception>
#include <vector>

#include "addon/cuda.h"
#include "exec/status.h"

namespace refl {
namespace {

// An Error keeps a pointer to its code, so the codes that the library throws stand here as well.
[[noreturn]] void raise(const ReflCudaError& error) {
  for (const char* code : {"ERR_OUT_OF_MEMORY", "ERR_DEVICE", "ERR_DTYPE", "ERR_SHAPE"}) {
    if (std::string(code) == error.code) throw Error(code, error.message);
  }
  throw Error("ERR_PROGRAM", error.message);
}

// Calls a function of the library whose last argument describes its failure.
template <class Fn, class... A>
void call(Fn fn, A... arguments) {
  ReflCudaError error = {};
  if (!fn(arguments..., &error)) raise(error);
}

// The library's device, which lives as long as anything that came from it.
struct Handle {
  Handle(const ReflCuda& library_, int index, bool tf32) : library(library_) {
    call(library.open, index, static_cast<int>(tf32), &device);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { library.close(device); }

  const ReflCuda& library;
  ReflCudaDevice* device = nullptr;
};

// A bound node, and the packed copies it reads.
struct Kernel {
  Kernel(std::shared_ptr<Handle> handle_, const ReflCudaNode& node) : handle(std::move(handle_)) {
    call(handle->library.bind, handle->device, &node, &binding);
  }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  ~Kernel() { handle->library.unbind(binding.kernel); }

  // Makes the copies whose buffer was written; true if any now lies elsewhere.
  bool prepare() {
    bool moved = false;
    for (size_t i = 0; i < packs.size(); i++) {
      auto copy = packs[i]->get([&](Values& values, std::byte* to) {
        call(handle->library.pack, handle->device, binding.kernel, i, static_cast<const void*>(values.all<std::byte>()),
             static_cast<void*>(to));
        call(handle->library.wait, handle->device);  // the plain values may go when this returns
      });
      moved |= copy != copies[i];
      copies[i] = std::move(copy);
    }
    return moved;
  }

  void launch(const Args& args, size_t inputs, size_t outputs) {
    std::vector<void*> in, out;
    std::vector<const void*> packed;
    for (size_t i = 0; i < inputs; i++) in.push_back(args.in[i].data);
    for (size_t i = 0; i < outputs; i++) out.push_back(args.out[i].data);
    for (const auto& copy : copies) packed.push_back(copy.get());
    call(handle->library.launch, handle->device, binding.kernel, static_cast<void* const*>(in.data()),
         static_cast<void* const*>(out.data()), static_cast<const void* const*>(packed.data()),
         static_cast<void*>(args.scratch));
  }

  const std::shared_ptr<Handle> handle;
  ReflCudaBinding binding = {};
  std::vector<std::shared_ptr<Pack>> packs;
  std::vector<std::shared_ptr<std::byte>> copies;
};

std::vector<ReflCudaOperand> described(const std::vector<Operand>& operands) {
  std::vector<ReflCudaOperand> all;
  for (const Operand& o : operands) {
    all.push_back({static_cast<int>(o.dtype), static_cast<int>(o.shape.size()), o.shape.data(), o.present, o.frozen});
  }
  return all;
}

class CudaBackend : public Backend {
 public:
  CudaBackend(const ReflCuda& library, int index, bool tf32, Executor& executor)
      : handle_(std::make_shared<Handle>(library, index, tf32)), door_(executor.door()) {}

  Bound bind(const NodeSpec& node) override {
    const auto inputs = described(node.inputs), outputs = described(node.outputs);
    std::vector<ReflCudaList> attrs;
    for (const auto& list : node.attrs) attrs.push_back({list.data(), list.size()});
    const ReflCudaNode plain = {node.op->name, node.layer.c_str(), inputs.data(),  outputs.data(),
                                attrs.data(),  inputs.size(),      outputs.size(), attrs.size()};
    const auto kernel = std::make_shared<Kernel>(handle_, plain);
    Bound bound;
    bound.scratch = kernel->binding.scratch;
    for (size_t i = 0; i < kernel->binding.packCount; i++) {
      const ReflCudaPack& pack = kernel->binding.packs[i];
      kernel->packs.push_back(node.inputs[pack.input].buffer->pack(pack.key, pack.bytes));
      bound.packed.push_back({pack.input, kernel->packs.back()});
    }
    kernel->copies.resize(kernel->packs.size());
    bound.run = [kernel, in = inputs.size(), out = outputs.size()](const Args& args) { kernel->launch(args, in, out); };
    if (!kernel->packs.empty()) bound.prepare = [kernel] { return kernel->prepare(); };
    return bound;
  }

  bool isHost() const override { return false; }

  std::shared_ptr<std::byte> allocate(size_t bytes, const std::string& what) override {
    void* at = nullptr;
    call(handle_->library.allocate, handle_->device, bytes, what.c_str(), &at);
    // Freeing memory may wait for the device, so it is left to the device's thread while that runs.
    return {static_cast<std::byte*>(at), [handle = handle_, door = door_](std::byte* p) {
              const auto free = [handle, p] { handle->library.release(handle->device, p); };
              if (!door->post(free)) free();
            }};
  }

  void upload(std::byte* to, const std::byte* from, size_t bytes) override {
    call(handle_->library.upload, handle_->device, static_cast<void*>(to), static_cast<const void*>(from), bytes);
  }

  void download(std::byte* to, const std::byte* from, size_t bytes) override {
    call(handle_->library.download, handle_->device, static_cast<void*>(to), static_cast<const void*>(from), bytes);
  }

  void run(std::shared_ptr<void>& recording, const std::function<void()>& launch) override {
    // Exceptions must not pass through the library.
    struct Context {
      const std::function<void()>& launch;
      std::exception_ptr thrown;
    } context = {launch, nullptr};
    const auto launches = [](void* at) -> int {
      auto& to = *static_cast<Context*>(at);
      try {
        to.launch();
        return 1;
      } catch (...) {
        to.thrown = std::current_exception();
        return 0;
      }
    };
    auto* known = static_cast<ReflCudaRecording*>(recording.get());
    ReflCudaRecording* now = known;
    ReflCudaError error = {};
    const int fine = handle_->library.segment(handle_->device, &now, launches, &context, &error);
    if (now != known) {
      recording = {now, [handle = handle_](void* r) { handle->library.forget(static_cast<ReflCudaRecording*>(r)); }};
    }
    if (context.thrown) std::rethrow_exception(context.thrown);
    if (!fine) raise(error);
  }

  void wait() override { call(handle_->library.wait, handle_->device); }

 private:
  const std::shared_ptr<Handle> handle_;
  const std::shared_ptr<Door> door_;
};

}  // namespace

std::shared_ptr<Backend> cudaBackend(const ReflCuda& library, int index, bool tf32, Executor& executor) {
  return std::make_shared<CudaBackend>(library, index, tf32, executor);
}

}  // namespace refl
