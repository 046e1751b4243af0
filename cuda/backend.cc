// The CUDA library's one entry. There are no kernels yet, so no device is usable, and it says which of the possible
// reasons stands in the way first: a build without CUDA, no driver, no device, no kernels.
#include <string>

#include "exec/cuda_abi.h"
#ifdef REFL_CUDART
#include <cuda_runtime_api.h>
#endif

namespace {

#ifdef REFL_CUDART
std::string build() {
  return "CUDA " + std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

std::string reason() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    return std::string("no CUDA device: ") + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")";
  }
  if (count == 0) return "no CUDA device: the driver lists none";
  cudaDeviceProp device;
  const std::string name = cudaGetDeviceProperties(&device, 0) == cudaSuccess ? device.name : "a CUDA device";
  return name + " is present, but this version has no CUDA kernels";
}
#else
std::string build() { return "no CUDA compiler"; }

std::string reason() {
  return "the CUDA library was built without nvcc; install CUDA 12 or later and run npm run build:cuda";
}
#endif

}  // namespace

extern "C" __attribute__((visibility("default"))) const ReflCuda* refl_cuda_get(int abi) {
  if (abi != REFL_CUDA_ABI) return nullptr;
  static const std::string why = reason(), with = build();
  static const ReflCuda table = {REFL_CUDA_ABI, 0, why.c_str(), with.c_str()};
  return &table;
}
