// Bulk copies of boxes of a tensor between global and shared memory (TMA, sm_90). One thread issues a copy. A load
// counts its box's bytes at an mbarrier, parts out of bounds included, which read as zero; a store leaves out what is
// out of bounds, and belongs to a group of the thread that issued it. What ordinary code wrote to shared memory must be
// fenced by each writer (fenceProxyAsync) before the barrier that leads to a store of it.
#pragma once
#include "simt/mbarrier.h"
#ifdef __CUDACC__
#include <cudaTypedefs.h>
#endif

namespace simt {

/** How 16-byte chunks of a box are permuted: bits 4 to 6 of the shared address are xored with bits 7 to 9 (two bits,
 * one bit). A swizzled box is exactly that many bytes wide. Values are those of a tensor map. */
enum class Swizzle { none = 0, bytes32 = 1, bytes64 = 2, bytes128 = 3 };
enum class TensorType { u8 = 0, f16 = 6, f32 = 7, bf16 = 9 };

/** A tensor as TMA sees it: innermost dimension first. */
struct TensorView {
  TensorType type;
  int rank;            // 1 to 5
  const void* at;      // a multiple of 128
  uint64_t extent[5];  // elements
  uint64_t stride[4];  // bytes from one index to the next of dimensions 1, 2, ...; multiples of 16
  uint32_t box[5];     // elements, 1 to 256
  uint32_t step[5];    // elements from one of the box to the next; 1 except for strided convolutions
  Swizzle swizzle;
};

#ifdef __CUDACC__
using TensorMap = CUtensorMap;

/** Fails with cudaErrorInvalidValue where the driver refuses the view. A kernel takes the map as a
 *  `const __grid_constant__ TensorMap` parameter. */
inline cudaError_t encodeTensorMap(TensorMap* map, const TensorView& view) {
  static PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
  if (!encode) {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    if (status != cudaSuccess) return status;
    if (result != cudaDriverEntryPointSuccess || !found) return cudaErrorNotSupported;
    encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
  }
  const CUresult made = encode(map, static_cast<CUtensorMapDataType>(view.type), static_cast<cuuint32_t>(view.rank),
                               const_cast<void*>(view.at), view.extent, view.stride, view.box, view.step,
                               CU_TENSOR_MAP_INTERLEAVE_NONE, static_cast<CUtensorMapSwizzle>(view.swizzle),
                               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return made == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/** Loads the box at element `at`, innermost first, to `to` (a multiple of 128). */
template <int R>
SIMT_DEVICE void tmaLoad(void* to, const TensorMap* map, const int (&at)[R], Mbarrier* barrier) {
  static_assert(R >= 1 && R <= 5, "tensors have 1 to 5 dimensions");
#define SIMT_TMA_LOAD(rank, coordinates, ...)                                                      \
  asm volatile("cp.async.bulk.tensor." rank                                                        \
               ".shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, " coordinates \
               "], [%2];" ::"r"(sharedAddress(to)),                                                \
               "l"(map), "r"(sharedAddress(barrier)), __VA_ARGS__                                  \
               : "memory")
  if constexpr (R == 1)
    SIMT_TMA_LOAD("1d", "{%3}", "r"(at[0]));
  else if constexpr (R == 2)
    SIMT_TMA_LOAD("2d", "{%3,%4}", "r"(at[0]), "r"(at[1]));
  else if constexpr (R == 3)
    SIMT_TMA_LOAD("3d", "{%3,%4,%5}", "r"(at[0]), "r"(at[1]), "r"(at[2]));
  else if constexpr (R == 4)
    SIMT_TMA_LOAD("4d", "{%3,%4,%5,%6}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]));
  else
    SIMT_TMA_LOAD("5d", "{%3,%4,%5,%6,%7}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]));
#undef SIMT_TMA_LOAD
}
/** Stores the box from `from` (a multiple of 128) at element `at`, none of which is negative. */
template <int R>
SIMT_DEVICE void tmaStore(const TensorMap* map, const int (&at)[R], const void* from) {
  static_assert(R >= 1 && R <= 5, "tensors have 1 to 5 dimensions");
#define SIMT_TMA_STORE(rank, coordinates, ...)                                                      \
  asm volatile("cp.async.bulk.tensor." rank ".global.shared::cta.tile.bulk_group [%1, " coordinates \
               "], [%0];" ::"r"(sharedAddress(from)),                                               \
               "l"(map), __VA_ARGS__                                                                \
               : "memory")
  if constexpr (R == 1)
    SIMT_TMA_STORE("1d", "{%2}", "r"(at[0]));
  else if constexpr (R == 2)
    SIMT_TMA_STORE("2d", "{%2,%3}", "r"(at[0]), "r"(at[1]));
  else if constexpr (R == 3)
    SIMT_TMA_STORE("3d", "{%2,%3,%4}", "r"(at[0]), "r"(at[1]), "r"(at[2]));
  else if constexpr (R == 4)
    SIMT_TMA_STORE("4d", "{%2,%3,%4,%5}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]));
  else
    SIMT_TMA_STORE("5d", "{%2,%3,%4,%5,%6}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]));
#undef SIMT_TMA_STORE
}
SIMT_DEVICE void tmaPrefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }
/** Makes a group of this thread's stores since the last call. */
SIMT_DEVICE void bulkCommit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/** Waits until at most N of this thread's groups still read shared memory: it may be reused. Needed before the thread
 * ends. */
template <int N>
SIMT_DEVICE void bulkWaitRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
/** Orders this thread's ordinary accesses to shared memory before asynchronous ones (bulk stores, wgmma) that a barrier
 * puts after it. */
SIMT_DEVICE void fenceProxyAsync() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else
struct TensorMap {
  TensorView view;
  uint32_t elementBytes, boxBytes;
};
cudaError_t encodeTensorMap(TensorMap* map, const TensorView& view);
namespace emu {
void bulkLoad(void* to, const TensorMap* map, const int* at, int rank, Mbarrier* barrier, Where where);
void bulkStore(const TensorMap* map, const int* at, int rank, const void* from, Where where);
void bulkWait(int pending, Where where);
}  // namespace emu
template <int R>
void tmaLoad(void* to, const TensorMap* map, const int (&at)[R], Mbarrier* barrier, SIMT_WHERE) {
  emu::bulkLoad(to, map, at, R, barrier, where);
}
template <int R>
void tmaStore(const TensorMap* map, const int (&at)[R], const void* from, SIMT_WHERE) {
  emu::bulkStore(map, at, R, from, where);
}
inline void tmaPrefetch(const TensorMap*) {}
void bulkCommit();
template <int N>
void bulkWaitRead(SIMT_WHERE) {
  emu::bulkWait(N, where);
}
void fenceProxyAsync();
#endif

}  // namespace simt
