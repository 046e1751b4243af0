// What only sm_90a has, besides simt/simt.h: mbarriers, bulk copies, wgmma, and what is below.
#pragma once
#include "simt/mbarrier.h"
#include "simt/simt.h"
#include "simt/tma.h"
#include "simt/wgmma.h"

namespace simt {

#ifdef __CUDACC__
/** Stores R = 1, 2 or 4 matrices of 8 x 8 16-bit elements: the mirror of ldmatrix. */
template <bool kTrans = false, int R>
SIMT_DEVICE void stmatrix(void* row, const uint32_t (&r)[R]) {
  static_assert(R == 1 || R == 2 || R == 4, "stmatrix stores 1, 2 or 4 matrices");
  const uint32_t at = sharedAddress(row);
  if constexpr (R == 4 && !kTrans)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
  else if constexpr (R == 4)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
  else if constexpr (R == 2 && !kTrans)
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1,%2};" ::"r"(at), "r"(r[0]), "r"(r[1]) : "memory");
  else if constexpr (R == 2)
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1,%2};" ::"r"(at), "r"(r[0]), "r"(r[1])
                 : "memory");
  else if constexpr (!kTrans)
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(at), "r"(r[0]) : "memory");
  else
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(at), "r"(r[0]) : "memory");
}
/** True in one lane of a converged warp. */
SIMT_DEVICE bool electOne() {
  uint32_t mine;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}" : "=r"(mine)::"memory");
  return mine != 0;
}
/** Raises or lowers a warpgroup's registers a thread, to a multiple of 8 from 24 to 256. The block keeps what it was
 * launched with: floor(65536 / threads) a thread, rounded down to a multiple of 8; the kernel needs
 * __launch_bounds__(threads, 1). */
template <int R>
SIMT_DEVICE void raiseRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(R));
}
template <int R>
SIMT_DEVICE void lowerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(R));
}
#else
namespace emu {
void storeMatrix(void* row, const uint32_t* r, int count, bool trans, Where where);
void setRegisters(int count, bool raise, Where where);
}  // namespace emu
template <bool kTrans = false, int R>
void stmatrix(void* row, const uint32_t (&r)[R], SIMT_WHERE) {
  static_assert(R == 1 || R == 2 || R == 4, "stmatrix stores 1, 2 or 4 matrices");
  emu::storeMatrix(row, r, R, kTrans, where);
}
bool electOne(SIMT_WHERE);
template <int R>
void raiseRegisters(SIMT_WHERE) {
  static_assert(R >= 24 && R <= 256 && R % 8 == 0, "a multiple of 8 from 24 to 256");
  emu::setRegisters(R, true, where);
}
template <int R>
void lowerRegisters(SIMT_WHERE) {
  static_assert(R >= 24 && R <= 256 && R % 8 == 0, "a multiple of 8 from 24 to 256");
  emu::setRegisters(R, false, where);
}
#endif

}  // namespace simt
