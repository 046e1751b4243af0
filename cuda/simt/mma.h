// Tensor-core fragments of a warp (sm_80 on). With lane l, g = l / 4 and t = l % 4:
//   A, 16 x 16 of 16 bits   register i holds row g + 8 * (i % 2), columns 2t + 8 * (i / 2) and the next, the lower one
//   low A, 16 x 8 of tf32       register i holds row g + 8 * (i % 2), column t + 4 * (i / 2) B, 16 x 8 of 16 bits
//   register i holds rows (k) 2t + 8i and the next, column (n) g B, 8 x 8 of tf32        register i holds row (k) t +
//   4i, column (n) g C, D, 16 x 8 float32    register i holds row g + 8 * (i / 2), column 2t + i % 2
// tf32 operands are truncated by the unit; round them with toTf32 first.
#pragma once
#include "simt/shared.h"

namespace simt {

#ifdef __CUDACC__
/** Loads R = 1, 2 or 4 matrices of 8 x 8 16-bit elements. Lanes 8j to 8j + 7 give the addresses of matrix j's rows,
 * each a multiple of 16 bytes; register j of lane l gets elements (l / 4, 2 (l % 4)) and the next of matrix j, and with
 * `kTrans` those of its transpose. All lanes give a valid address. */
template <bool kTrans = false, int R>
SIMT_DEVICE void ldmatrix(uint32_t (&r)[R], const void* row) {
  static_assert(R == 1 || R == 2 || R == 4, "ldmatrix loads 1, 2 or 4 matrices");
  const uint32_t at = sharedAddress(row);
  if constexpr (R == 4 && !kTrans)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  else if constexpr (R == 4)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  else if constexpr (R == 2 && !kTrans)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
  else if constexpr (R == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
  else if constexpr (!kTrans)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
}

/** d += a b: 16 x 8 x 16 for bf16 and f16, 16 x 8 x 8 for tf32. */
template <class T>
SIMT_DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
#define SIMT_MMA(T, form)                                                                          \
  template <>                                                                                      \
  SIMT_DEVICE void mma<T>(float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) {            \
    asm volatile("mma.sync.aligned." form " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));              \
  }
SIMT_MMA(bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
SIMT_MMA(f16, "m16n8k16.row.col.f32.f16.f16.f32")
SIMT_MMA(tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef SIMT_MMA

/** d[m][n] += a[m] b[n] for all pairs; under the emulator one meeting of the warp, so prefer it to single products. */
template <class T, int M, int N>
SIMT_DEVICE void mmaTiles(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) mma<T>(d[m][n], a[m], b[n]);
  }
}
#else
namespace emu {
enum class Element { bf16, f16, tf32 };
template <class T>
constexpr Element kElement = Element::tf32;
template <>
inline constexpr Element kElement<bf16> = Element::bf16;
template <>
inline constexpr Element kElement<f16> = Element::f16;
void loadMatrix(uint32_t* r, int count, bool trans, const void* row, Where where);
void multiply(Element type, float* d, const uint32_t* a, const uint32_t* b, int m, int n, Where where);
}  // namespace emu
template <bool kTrans = false, int R>
void ldmatrix(uint32_t (&r)[R], const void* row, SIMT_WHERE) {
  static_assert(R == 1 || R == 2 || R == 4, "ldmatrix loads 1, 2 or 4 matrices");
  emu::loadMatrix(r, R, kTrans, row, where);
}
template <class T>
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_WHERE) {
  emu::multiply(emu::kElement<T>, d, a, b, 1, 1, where);
}
template <class T, int M, int N>
void mmaTiles(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2], SIMT_WHERE) {
  emu::multiply(emu::kElement<T>, d[0][0], a[0], b[0], M, N, where);
}
#endif

}  // namespace simt
