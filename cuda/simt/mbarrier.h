// mbarriers (sm_90): counters of arrivals and of bytes in shared memory, with phases. A phase is complete when as many
// arrivals as the barrier was made for have come and all bytes expected in it have landed; then the next one begins.
//
// A ring of S stages, for it = 0, 1, 2, ... with s = it % S and phase = it / S % 2:
//   producer   mbarrierWait(empty + s, phase ^ 1); mbarrierArriveExpect(full + s, bytes); tmaLoad(..., full + s, ...)
//   consumer   mbarrierWait(full + s, phase); ... read the stage ...; mbarrierArrive(empty + s)
#pragma once
#include "simt/shared.h"

namespace simt {

/** In shared memory. */
struct alignas(8) Mbarrier {
  uint64_t state;
};

#ifdef __CUDACC__
/** By one thread; then mbarrierInitFence by it, and a barrier of the block before others use it. */
SIMT_DEVICE void mbarrierInit(Mbarrier* at, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sharedAddress(at)), "r"(arrivals) : "memory");
}
SIMT_DEVICE void mbarrierInitFence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/** Before the bytes are used for something else. */
SIMT_DEVICE void mbarrierInvalidate(Mbarrier* at) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(sharedAddress(at)) : "memory");
}
SIMT_DEVICE void mbarrierArrive(Mbarrier* at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(sharedAddress(at)) : "memory");
}
/** Expects `bytes` more (fewer than 2^20 in a phase) and arrives. */
SIMT_DEVICE void mbarrierArriveExpect(Mbarrier* at, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sharedAddress(at)), "r"(bytes)
               : "memory");
}
/** Whether the phase of this parity, the current one or the one before, is complete. On a new barrier that of parity 1
 * is. */
SIMT_DEVICE bool mbarrierTest(Mbarrier* at, int parity) {
  uint32_t done;
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
               : "=r"(done)
               : "r"(sharedAddress(at)), "r"(parity)
               : "memory");
  return done != 0;
}
SIMT_DEVICE void mbarrierWait(Mbarrier* at, int parity) {
  while (!mbarrierTest(at, parity)) {
  }
}
#else
void mbarrierInit(Mbarrier* at, int arrivals, SIMT_WHERE);
void mbarrierInitFence();
void mbarrierInvalidate(Mbarrier* at, SIMT_WHERE);
void mbarrierArrive(Mbarrier* at, SIMT_WHERE);
void mbarrierArriveExpect(Mbarrier* at, int bytes, SIMT_WHERE);
bool mbarrierTest(Mbarrier* at, int parity, SIMT_WHERE);
void mbarrierWait(Mbarrier* at, int parity, SIMT_WHERE);
#endif

}  // namespace simt
