// Launchers of hopper.cu.
#pragma once
#include "simt/hopper.h"

enum class HopperFault {
  none,
  missingProxyFence,
  wrongParity,
  expectTooMany,
  expectTooFew,
  accumulatorBeforeWait,
  accumulatorWritten,
  wrongStride,
  wrongSwizzle,
  missingWgmmaFence,
  missingFullWait,
  missingEmptyWait,
  earlyRelease,
  missingWgmmaWait,
  missingInitFence,
  missingInitBarrier,
  missingStoreBarrier,
  missingStoreWait,
  tooManyRegisters,
  tooFewArrivals,
};

/** C = A B^T with A [m, k], B [n, k], C [m, n], of bf16 or f16; k and n are multiples of 8. */
template <class T>
cudaError_t hopperProduct(HopperFault fault, const T* a, const T* b, T* c, int m, int n, int k);

/** What wgmma reads through other descriptors: [64, K] times B, given as [n, K] or, `transposed`, as [K, n]; K is 32
 * bytes. `fragments`: A from registers. n is 32 or 64. */
template <class T>
cudaError_t groupProduct(const T* a, const T* b, float* c, int n, bool transposed, bool fragments,
                         simt::Swizzle swizzle);
cudaError_t groupProductTf32(const simt::tf32* a, const simt::tf32* b, float* c, bool fragments, simt::Swizzle swizzle);

/** Copies a box of a tensor of rank `rank` and float elements, to `out` in the order of the box. */
cudaError_t box(const simt::TensorView& view, const int (&at)[5], float* out);
