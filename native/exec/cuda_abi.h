#pragma once
// What the addon and the CUDA library, which it opens at run time, agree on: plain C, so that the two may come from
// different compilers. The number changes with the struct.
#define REFL_CUDA_ABI 1

extern "C" {

struct ReflCuda {
  int abi;
  int devices;         // how many devices can run programs
  const char* reason;  // why there are none, or "" where there are some
  const char* build;   // what the library was built with, as "CUDA 13.0"
};

// Never fails: returns null to a caller of another ABI, else a table that lives as long as the library is loaded.
typedef const ReflCuda* (*ReflCudaGet)(int abi);

}  // extern "C"
