#pragma once
// What the addon and the CUDA library, which it opens at run time, agree on: plain C, so that the two may come from
// different compilers. The number changes with anything below, and with what ops.json says of nodes. A function that
// may fail returns whether it succeeded and describes its failure in the last argument; none throws.
#include <stddef.h>
#include <stdint.h>
#define REFL_CUDA_ABI 4

extern "C" {

struct ReflCudaError {
  char code[32];  // as ERR_OUT_OF_MEMORY
  char message[1024];
};

struct ReflCudaOperand {
  int dtype, rank;  // dtype: refl::DType's number
  const int64_t* shape;
  int present, frozen;
};

struct ReflCudaList {
  const double* values;
  size_t count;
};

struct ReflCudaNode {
  const char *op, *layer;
  const ReflCudaOperand *inputs, *outputs;
  const ReflCudaList* attrs;  // in table order
  size_t inputCount, outputCount, attrCount;
};

// A copy of a frozen input that a kernel reads instead of it.
struct ReflCudaPack {
  size_t input, bytes;
  const char* key;
};

struct ReflCudaDevice;
struct ReflCudaKernel;
struct ReflCudaRecording;

// A bound node. Everything lives until `unbind`.
struct ReflCudaBinding {
  ReflCudaKernel* kernel;
  size_t scratch;
  const ReflCudaPack* packs;
  size_t packCount;
};

struct ReflCuda {
  int abi;
  int devices;         // how many devices can run programs
  const char* reason;  // why there are none, or "" where there are some
  const char* build;   // what the library was built with, as "CUDA 13.0"

  // `tf32`: whether products of float32 may round their operands to tf32.
  int (*open)(int index, int tf32, ReflCudaDevice** device, ReflCudaError* error);
  void (*close)(ReflCudaDevice* device);
  const char* (*describe)(const ReflCudaDevice* device);  // as "NVIDIA H100 (sm_90, 80.0 GB)"

  int (*allocate)(ReflCudaDevice* device, size_t bytes, const char* what, void** at, ReflCudaError* error);
  void (*release)(ReflCudaDevice* device, void* at);
  int (*upload)(ReflCudaDevice* device, void* to, const void* from, size_t bytes, ReflCudaError* error);
  int (*download)(ReflCudaDevice* device, void* to, const void* from, size_t bytes, ReflCudaError* error);

  int (*bind)(ReflCudaDevice* device, const ReflCudaNode* node, ReflCudaBinding* binding, ReflCudaError* error);
  void (*unbind)(ReflCudaKernel* kernel);
  // Writes pack number `pack` from the input's plain bytes.
  int (*pack)(ReflCudaDevice* device, ReflCudaKernel* kernel, size_t pack, const void* plain, void* copy,
              ReflCudaError* error);
  int (*launch)(ReflCudaDevice* device, ReflCudaKernel* kernel, void* const* in, void* const* out,
                const void* const* packed, void* scratch, ReflCudaError* error);

  // Calls launches(context), which launches a segment's kernels and returns whether it could, or replays what was
  // recorded of an earlier call in `recording`, which starts as null.
  int (*segment)(ReflCudaDevice* device, ReflCudaRecording** recording, int (*launches)(void* context), void* context,
                 ReflCudaError* error);
  void (*forget)(ReflCudaRecording* recording);
  int (*wait)(ReflCudaDevice* device, ReflCudaError* error);
};

// Never fails: returns null to a caller of another ABI, else a table that lives as long as the library is loaded.
typedef const ReflCuda* (*ReflCudaGet)(int abi);

}  // extern "C"
