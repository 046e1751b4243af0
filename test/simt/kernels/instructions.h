// Launchers of instructions.cu; pointers are device memory.
#pragma once
#include "simt/simt.h"

cudaError_t shuffles(const int* in, int* out, int threads);
cudaError_t transpose(const float* in, float* out, int rows, int columns);
cudaError_t named(const int* in, int* out);
cudaError_t atomics(int* sum, float* total, unsigned* turns);
template <class T>
cudaError_t convert(const float* in, T* out, float* back, int count);
template <class T>
cudaError_t product(const T* a, const T* b, float* c, int depth);
cudaError_t productTf32(const float* a, const float* b, float* c);
cudaError_t fill(const char* in, char* out, int valid);
