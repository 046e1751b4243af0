// Tables of tensors for kernels that go over many at once, and sums over all of them.
//
// A launch takes a table by value, at most 4 KB of parameters. Each tensor is cut into pieces of 8192 elements, and a
// block of 256 threads has one piece: it finds its tensor by a binary search over the first blocks of all, and then
// goes through the piece 16 bytes a thread of the wider type. A thousand small biases are so a handful of launches, and
// a matrix fills the device.
#pragma once
#include <vector>

#include "simt/simt.h"

namespace refl::cuda {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kPiece = 8192;

constexpr int blocksOf(int count) { return count / kPiece + (count % kPiece != 0); }

/** N sets of K tensors of one size. Set i has the blocks from first[i] to first[i + 1]. */
template <int K, int N>
struct Table {
  void* at[K][N];
  int count[N], first[N + 1], sets;
};

/** The set that has this block. */
template <class Tables>
__device__ __forceinline__ int setOf(const Tables& table) {
  int low = 0, high = table.sets;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first[middle] <= static_cast<int>(blockIdx.x))
      low = middle;
    else
      high = middle;
  }
  return low;
}

/** Calls vector(i) for each whole vector of V elements of this block's piece, then one(i) for elements that are left.
 */
template <int V, class Vector, class One>
__device__ __forceinline__ void eachOf(int count, int piece, Vector&& vector, One&& one) {
  const int begin = piece * kPiece, end = min(count - begin, kPiece) + begin;
  const int whole = begin + (end - begin) / V * V;
#pragma unroll 1
  for (int i = begin + static_cast<int>(threadIdx.x) * V; i < whole; i += kThreads * V) vector(i);
#pragma unroll 1
  for (int i = whole + static_cast<int>(threadIdx.x); i < end; i += kThreads) one(i);
}

/** Fills tables with the non-empty ones of `sets` and hands each, when full, to `run(table, blocks)`; `put(table, i,
 * set)` writes the addresses. */
template <class Tables, int kMost, class Set, class Put, class Run>
cudaError_t inTables(const std::vector<Set>& sets, Put&& put, Run&& run) {
  Tables table = {};
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets[i].count > 0) {
      const int to = table.sets++;
      put(table, to, sets[i]);
      table.count[to] = sets[i].count;
      table.first[to + 1] = table.first[to] + blocksOf(sets[i].count);
    }
    if (table.sets == 0 || (table.sets < kMost && i + 1 < sets.size())) continue;
    const cudaError_t error = run(table, static_cast<unsigned>(table.first[table.sets]));
    if (error != cudaSuccess) return error;
    table = {};
  }
  return cudaSuccess;
}

constexpr int kFinishThreads = 1024;

/** The block's sum of v, to all threads. All warps are whole. */
template <int kAll>
__device__ __forceinline__ double blockSum(double v) {
  SIMT_SHARED(double, partial, [kAll]);
  v = simt::warpSum(v);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  double total = 0;
  for (int i = 0; i < kAll; ++i) total += partial[i];
  return total;
}

template <class Finish>
__global__ void __launch_bounds__(kFinishThreads)
    finishKernel(const double* __restrict__ partials, int count, float* __restrict__ y) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kFinishThreads) sum += partials[i];
  const double total = blockSum<kFinishThreads / 32>(sum);
  if (threadIdx.x == 0) *y = Finish::of(total);
}

}  // namespace refl::cuda
