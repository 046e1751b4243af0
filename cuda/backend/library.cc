// The CUDA library's C entry: its devices, or why there are none, and the table of functions that the addon drives them
// with. C++ exceptions end here.
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "exec/cuda_abi.h"
#ifdef REFL_CUDART
#include "backend/device.h"

struct ReflCudaDevice : refl::cuda::Device {
  ReflCudaDevice(int index, bool tf32_) : Device(index), tf32(tf32_) {}
  const bool tf32;
};

// A bound node: what its binder made, and its tensors, whose addresses each launch brings.
struct ReflCudaKernel {
  refl::cuda::Bound bound;
  std::string name;  // of layer and operator, for messages
  std::vector<refl::Tensor> in, out;
  std::vector<ReflCudaPack> packs;
};
#endif

namespace refl::cuda {
namespace {

#ifdef REFL_CUDART
std::string versionOf(int number) {
  return "CUDA " + std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string build() { return versionOf(CUDART_VERSION); }

// Why there are no devices, and what to do about it.
std::string reasonOf(cudaError_t status) {
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0;  // stays where there is none
    cudaDriverGetVersion(&driver);
    return driver == 0 ? "there is no NVIDIA driver (libcuda.so.1); install one that supports " + build()
                       : "the NVIDIA driver supports " + versionOf(driver) + " and the library needs " + build() +
                             "; install a newer driver, or build the library with an older CUDA";
  }
  if (status == cudaSuccess || status == cudaErrorNoDevice)
    return "the driver lists none; see what nvidia-smi says, and whether CUDA_VISIBLE_DEVICES hides them";
  return std::string(cudaGetErrorName(status)) + " (" + cudaGetErrorString(status) + "); see what nvidia-smi says";
}

// Counts the devices, or says why there are none.
int countDevices(std::string& reason) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  reason = "no CUDA device: " + reasonOf(status);
  return 0;
}

void describe(ReflCudaError* error, const char* code, const char* message) {
  std::snprintf(error->code, sizeof error->code, "%s", code);
  std::snprintf(error->message, sizeof error->message, "%s", message);
}

template <class Fn>
int guarded(ReflCudaError* error, Fn&& fn) {
  try {
    fn();
    return 1;
  } catch (const Error& thrown) {
    describe(error, thrown.code(), thrown.what());
  } catch (const std::bad_alloc&) {
    describe(error, "ERR_OUT_OF_MEMORY", "out of memory");
  } catch (const std::exception& thrown) {
    describe(error, "ERR_PROGRAM", thrown.what());
  }
  return 0;
}

int open(int index, int tf32, ReflCudaDevice** device, ReflCudaError* error) {
  return guarded(error, [&] { *device = new ReflCudaDevice(index, tf32 != 0); });
}

void close(ReflCudaDevice* device) { delete device; }

const char* describeDevice(const ReflCudaDevice* device) { return device->description().c_str(); }

int allocate(ReflCudaDevice* device, size_t bytes, const char* what, void** at, ReflCudaError* error) {
  return guarded(error, [&] { *at = device->allocate(bytes, what); });
}

void release(ReflCudaDevice* device, void* at) { device->release(at); }

int upload(ReflCudaDevice* device, void* to, const void* from, size_t bytes, ReflCudaError* error) {
  return guarded(error, [&] { device->upload(to, from, bytes); });
}

int download(ReflCudaDevice* device, void* to, const void* from, size_t bytes, ReflCudaError* error) {
  return guarded(error, [&] { device->download(to, from, bytes); });
}

std::vector<Operand> operands(const ReflCudaOperand* of, size_t count) {
  std::vector<Operand> all(count);
  for (size_t i = 0; i < count; i++) {
    all[i].dtype = static_cast<DType>(of[i].dtype);
    all[i].shape.assign(of[i].shape, of[i].shape + of[i].rank);
    all[i].present = of[i].present != 0;
    all[i].frozen = of[i].frozen != 0;
  }
  return all;
}

std::vector<Tensor> tensors(const std::vector<Operand>& of) {
  std::vector<Tensor> all;
  for (const Operand& operand : of) all.push_back({nullptr, operand.dtype, operand.shape});
  return all;
}

int bind(ReflCudaDevice* device, const ReflCudaNode* node, ReflCudaBinding* binding, ReflCudaError* error) {
  return guarded(error, [&] {
    NodeSpec spec;
    spec.op = findOp(node->op);
    const auto found = spec.op ? kernels().find(node->op) : kernels().end();
    if (found == kernels().end()) {
      throw Error("ERR_PROGRAM", std::string(node->op) + " has no CUDA kernel");
    }
    spec.layer = node->layer;
    spec.tf32 = device->tf32;
    spec.inputs = operands(node->inputs, node->inputCount);
    spec.outputs = operands(node->outputs, node->outputCount);
    for (size_t i = 0; i < node->attrCount; i++) {
      spec.attrs.emplace_back(node->attrs[i].values, node->attrs[i].values + node->attrs[i].count);
    }
    auto kernel = std::make_unique<ReflCudaKernel>();
    kernel->bound = found->second(spec);
    kernel->name = (spec.layer.empty() ? "" : spec.layer + ": ") + spec.op->name;
    kernel->in = tensors(spec.inputs);
    kernel->out = tensors(spec.outputs);
    for (const PackedInput& p : kernel->bound.packed) kernel->packs.push_back({p.input, p.bytes, p.key.c_str()});
    *binding = {kernel.get(), kernel->bound.scratch, kernel->packs.data(), kernel->packs.size()};
    kernel.release();
  });
}

void unbind(ReflCudaKernel* kernel) { delete kernel; }

int pack(ReflCudaDevice* device, ReflCudaKernel* kernel, size_t index, const void* plain, void* copy,
         ReflCudaError* error) {
  return guarded(error, [&] {
    const PackedInput& input = kernel->bound.packed[index];
    device->check(input.make(plain, static_cast<std::byte*>(copy), device->stream()), kernel->name.c_str());
  });
}

int launch(ReflCudaDevice* device, ReflCudaKernel* kernel, void* const* in, void* const* out, const void* const* packed,
           void* scratch, ReflCudaError* error) {
  return guarded(error, [&] {
    for (size_t i = 0; i < kernel->in.size(); i++) kernel->in[i].data = in[i];
    for (size_t i = 0; i < kernel->out.size(); i++) kernel->out[i].data = out[i];
    const Args args = {kernel->in.data(), kernel->out.data(), reinterpret_cast<const std::byte* const*>(packed),
                       static_cast<std::byte*>(scratch), device->stream()};
    device->check(kernel->bound.run(args), kernel->name.c_str());
  });
}

int segment(ReflCudaDevice* device, ReflCudaRecording** recording, int (*launches)(void*), void* context,
            ReflCudaError* error) {
  return guarded(error, [&] {
    if (!*recording) *recording = new ReflCudaRecording();
    device->segment(**recording, [&] { return launches(context) != 0; });
  });
}

void forget(ReflCudaRecording* recording) {
  if (recording && recording->graph) cudaGraphExecDestroy(recording->graph);
  delete recording;
}

int wait(ReflCudaDevice* device, ReflCudaError* error) {
  return guarded(error, [&] { device->wait(); });
}

const ReflCuda* table() {
  static std::string reason;
  static const int devices = countDevices(reason);
  static const std::string with = build();
  static const ReflCuda all = {REFL_CUDA_ABI,  devices,  reason.c_str(), with.c_str(), open,     close,
                               describeDevice, allocate, release,        upload,       download, bind,
                               unbind,         pack,     launch,         segment,      forget,   wait};
  return &all;
}
#else
const ReflCuda* table() {
  static const ReflCuda none = [] {
    ReflCuda all = {};
    all.abi = REFL_CUDA_ABI;
    all.reason = "the CUDA library was built without nvcc; install CUDA 12 or later and run npm run build:cuda";
    all.build = "no CUDA compiler";
    return all;
  }();
  return &none;
}
#endif

}  // namespace
}  // namespace refl::cuda

extern "C" __attribute__((visibility("default"))) const ReflCuda* refl_cuda_get(int abi) {
  return abi == REFL_CUDA_ABI ? refl::cuda::table() : nullptr;
}
