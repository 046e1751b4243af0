// Asynchronous copies from global to shared memory (cp.async, sm_80 on). A copy has landed, for the thread that issued
// it, after a wait that covers its group; for other threads after a barrier that follows. The emulator writes nothing
// (but NaN) before that wait.
#pragma once
#include "simt/shared.h"

namespace simt {

#ifdef __CUDACC__
/** Copies the first `valid` of B = 4, 8 or 16 bytes and zeros after them; both addresses are multiples of B. With valid
 * 0 nothing is read, but the pointer must still lie in an allocation. */
template <int B>
SIMT_DEVICE void cpAsync(void* to, const void* from, int valid = B) {
  static_assert(B == 4 || B == 8 || B == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (B == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(to)), "l"(from), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(sharedAddress(to)), "l"(from), "n"(B), "r"(valid)
                 : "memory");
}
/** Makes a group of the copies that this thread has issued since the last call; it may be empty. */
SIMT_DEVICE void cpAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/** Waits until at most N of this thread's youngest groups have not landed. */
template <int N>
SIMT_DEVICE void cpAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
namespace emu {
void copyAsync(void* to, const void* from, int bytes, int valid, Where where);
void copyWait(int pending, Where where);
}  // namespace emu
template <int B>
void cpAsync(void* to, const void* from, int valid = B, SIMT_WHERE) {
  static_assert(B == 4 || B == 8 || B == 16, "cp.async copies 4, 8 or 16 bytes");
  emu::copyAsync(to, from, B, valid, where);
}
void cpAsyncCommit();
template <int N>
void cpAsyncWait(SIMT_WHERE) {
  emu::copyWait(N, where);
}
#endif

}  // namespace simt
