// A stand-in for the part of the CUDA runtime that cuda/backend and bench/cuda use, over the emulator: the library's
// host code, built with it, is device emu:0. It is contrary where CUDA may be: what is queued on a stream runs as late
// as a program can tell, and fresh memory is full of NaN.
#pragma once
#include <cstddef>

#include "simt/launch.h"

#define CUDART_VERSION 13000

// The codes that a host program meets, besides those of simt/launch.h.
constexpr auto cudaErrorInvalidValue = static_cast<cudaError_t>(1);
constexpr auto cudaErrorMemoryAllocation = static_cast<cudaError_t>(2);
constexpr auto cudaErrorInsufficientDriver = static_cast<cudaError_t>(35);
constexpr auto cudaErrorNoDevice = static_cast<cudaError_t>(100);
constexpr auto cudaErrorInvalidDevice = static_cast<cudaError_t>(101);
constexpr auto cudaErrorDevicesUnavailable = static_cast<cudaError_t>(46);
constexpr auto cudaErrorNoKernelImageForDevice = static_cast<cudaError_t>(209);
constexpr auto cudaErrorInvalidPtx = static_cast<cudaError_t>(218);
constexpr auto cudaErrorJitCompilerNotFound = static_cast<cudaError_t>(221);
constexpr auto cudaErrorUnsupportedPtxVersion = static_cast<cudaError_t>(222);
constexpr auto cudaErrorStreamCaptureUnsupported = static_cast<cudaError_t>(900);
constexpr auto cudaErrorStreamCaptureInvalidated = static_cast<cudaError_t>(901);

struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;
using cudaEvent_t = CUevent_st*;
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraphExec_st*;

struct cudaDeviceProp {
  char name[256];
  int major, minor;
  size_t totalGlobalMem;
};

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2;

const char* cudaGetErrorName(cudaError_t status);
const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetLastError();

cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);

cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** at, size_t bytes);
cudaError_t cudaFree(void* at);
cudaError_t cudaMallocHost(void** at, size_t bytes);
cudaError_t cudaFreeHost(void* at);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
