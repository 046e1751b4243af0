// wgmma (sm_90a): a warpgroup, four warps of which the first is a multiple of four, multiplies 64 x K by K x N, K being
// 32 bytes: 16 of bf16 and f16, 8 of tf32. B, and A or its fragments, are read from shared memory through descriptors,
// D is in registers: register i of thread t (warp w = t / 32 % 4, lane l) holds row 16 w + l / 4 + 8 (i / 2 % 2) and
// column 8 (i / 4) + 2 (l % 4) + i % 2. A fragments are laid out as those of mma (simt/mma.h), rows from 16 w on.
//
//   wgmmaFence(); wgmma<bf16, 128>(d, a, b, k > 0); ...; wgmmaCommit(); wgmmaWait<0>();
//
// From the instruction to the wait that covers its group, D is neither read nor written, and neither A fragments nor
// the operands in shared memory are written. wgmmaFence comes before the first one, and again after a wait.
#pragma once
#include "simt/mma.h"
#include "simt/tma.h"

namespace simt {

/** A matrix in shared memory. K-major (rows of K, `stride` bytes from 8 rows to the next 8): swizzled rows are as wide
 * as the swizzle, 32 to 128 bytes, and `leading` is not used. MN-major (rows of M or N): `leading` bytes from one
 * swizzle width of elements to the next, `stride` from 8 of K to the next 8. Unswizzled: see section 2 of PTX's wgmma
 * layouts. */
SIMT_DEVICE uint64_t matrixDescriptor(const void* at, Swizzle swizzle, int leading, int stride) {
  constexpr uint64_t kCodes = 0x1230;  // of none, 32, 64 and 128 bytes: 0, 3, 2, 1
  const uint64_t code = kCodes >> (4 * static_cast<int>(swizzle)) & 3;
  return (sharedAddress(at) & 0x3ffffu) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32 | code << 62;
}
/** The descriptor of a matrix that starts `bytes`, a multiple of 16, further on. */
SIMT_BOTH uint64_t advanced(uint64_t descriptor, int bytes) { return descriptor + static_cast<uint64_t>(bytes >> 4); }

#ifdef __CUDACC__
SIMT_DEVICE void wgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
SIMT_DEVICE void wgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/** Waits until at most N groups are in flight. */
template <int N>
SIMT_DEVICE void wgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/** Keeps the compiler from moving accesses to accumulators over a fence or a wait. */
template <int R>
SIMT_DEVICE void wgmmaHold(float (&d)[R]) {
#pragma unroll
  for (int i = 0; i < R; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// The forms of one N: its D registers are operands 0 to N / 2 - 1, and the other operands follow.
#define SIMT_WGMMA(N, D, O0, O1, O2, O3, O4, O5, O6, O7, ...)                                                  \
  template <int kTransA, int kTransB>                                                                          \
  SIMT_DEVICE void wgmmaShared(bf16, float(&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {               \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " O2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N           \
                 "k16.f32.bf16.bf16 {" D "}, " O0 ", " O1 ", p, 1, 1, " O3 ", " O4 ";\n}"                      \
                 : __VA_ARGS__                                                                                 \
                 : "l"(a), "l"(b), "r"(accumulate), "n"(kTransA), "n"(kTransB));                               \
  }                                                                                                            \
  template <int kTransA, int kTransB>                                                                          \
  SIMT_DEVICE void wgmmaShared(f16, float(&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {                \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " O2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N           \
                 "k16.f32.f16.f16 {" D "}, " O0 ", " O1 ", p, 1, 1, " O3 ", " O4 ";\n}"                        \
                 : __VA_ARGS__                                                                                 \
                 : "l"(a), "l"(b), "r"(accumulate), "n"(kTransA), "n"(kTransB));                               \
  }                                                                                                            \
  template <int, int>                                                                                          \
  SIMT_DEVICE void wgmmaShared(tf32, float(&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {               \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " O2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N           \
                 "k8.f32.tf32.tf32 {" D "}, " O0 ", " O1 ", p, 1, 1;\n}"                                       \
                 : __VA_ARGS__                                                                                 \
                 : "l"(a), "l"(b), "r"(accumulate));                                                           \
  }                                                                                                            \
  template <int kTransB>                                                                                       \
  SIMT_DEVICE void wgmmaFragments(bf16, float(&d)[N / 2], const uint32_t(&a)[4], uint64_t b, int accumulate) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " O5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N           \
                 "k16.f32.bf16.bf16 {" D "}, {" O0 "," O1 "," O2 "," O3 "}, " O4 ", p, 1, 1, " O6 ";\n}"       \
                 : __VA_ARGS__                                                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransB));         \
  }                                                                                                            \
  template <int kTransB>                                                                                       \
  SIMT_DEVICE void wgmmaFragments(f16, float(&d)[N / 2], const uint32_t(&a)[4], uint64_t b, int accumulate) {  \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " O5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N           \
                 "k16.f32.f16.f16 {" D "}, {" O0 "," O1 "," O2 "," O3 "}, " O4 ", p, 1, 1, " O6 ";\n}"         \
                 : __VA_ARGS__                                                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransB));         \
  }                                                                                                            \
  template <int>                                                                                               \
  SIMT_DEVICE void wgmmaFragments(tf32, float(&d)[N / 2], const uint32_t(&a)[4], uint64_t b, int accumulate) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " O5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N           \
                 "k8.f32.tf32.tf32 {" D "}, {" O0 "," O1 "," O2 "," O3 "}, " O4 ", p, 1, 1;\n}"                \
                 : __VA_ARGS__                                                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                       \
  }
#define SIMT_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIMT_D16(i) SIMT_D4(i), SIMT_D4(i + 4), SIMT_D4(i + 8), SIMT_D4(i + 12)
#define SIMT_N0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define SIMT_N1 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define SIMT_N2 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define SIMT_N3 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define SIMT_N4 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define SIMT_N5 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define SIMT_N6 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define SIMT_N7 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
SIMT_WGMMA(8, "%0,%1,%2,%3", "%4", "%5", "%6", "%7", "%8", "%9", "%10", "%11", SIMT_D4(0))
SIMT_WGMMA(16, "%0,%1,%2,%3,%4,%5,%6,%7", "%8", "%9", "%10", "%11", "%12", "%13", "%14", "%15", SIMT_D4(0), SIMT_D4(4))
SIMT_WGMMA(32, SIMT_N0, "%16", "%17", "%18", "%19", "%20", "%21", "%22", "%23", SIMT_D16(0))
SIMT_WGMMA(64, SIMT_N0 "," SIMT_N1, "%32", "%33", "%34", "%35", "%36", "%37", "%38", "%39", SIMT_D16(0), SIMT_D16(16))
SIMT_WGMMA(96, SIMT_N0 "," SIMT_N1 "," SIMT_N2, "%48", "%49", "%50", "%51", "%52", "%53", "%54", "%55", SIMT_D16(0),
           SIMT_D16(16), SIMT_D16(32))
SIMT_WGMMA(128, SIMT_N0 "," SIMT_N1 "," SIMT_N2 "," SIMT_N3, "%64", "%65", "%66", "%67", "%68", "%69", "%70", "%71",
           SIMT_D16(0), SIMT_D16(16), SIMT_D16(32), SIMT_D16(48))
SIMT_WGMMA(160, SIMT_N0 "," SIMT_N1 "," SIMT_N2 "," SIMT_N3 "," SIMT_N4, "%80", "%81", "%82", "%83", "%84", "%85",
           "%86", "%87", SIMT_D16(0), SIMT_D16(16), SIMT_D16(32), SIMT_D16(48), SIMT_D16(64))
SIMT_WGMMA(192, SIMT_N0 "," SIMT_N1 "," SIMT_N2 "," SIMT_N3 "," SIMT_N4 "," SIMT_N5, "%96", "%97", "%98", "%99", "%100",
           "%101", "%102", "%103", SIMT_D16(0), SIMT_D16(16), SIMT_D16(32), SIMT_D16(48), SIMT_D16(64), SIMT_D16(80))
SIMT_WGMMA(256, SIMT_N0 "," SIMT_N1 "," SIMT_N2 "," SIMT_N3 "," SIMT_N4 "," SIMT_N5 "," SIMT_N6 "," SIMT_N7, "%128",
           "%129", "%130", "%131", "%132", "%133", "%134", "%135", SIMT_D16(0), SIMT_D16(16), SIMT_D16(32),
           SIMT_D16(48), SIMT_D16(64), SIMT_D16(80), SIMT_D16(96), SIMT_D16(112))
#undef SIMT_N0
#undef SIMT_N1
#undef SIMT_N2
#undef SIMT_N3
#undef SIMT_N4
#undef SIMT_N5
#undef SIMT_N6
#undef SIMT_N7
#undef SIMT_D16
#undef SIMT_D4
#undef SIMT_WGMMA

/** D = A B, + D where `accumulate`; N is 8, 16, 32, 64, 96, 128, 160, 192 or 256. kTransA, kTransB: 1 for MN-major
 * operands in shared memory, bf16 and f16 only. */
template <class T, int N, int kTransA = 0, int kTransB = 0>
SIMT_DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
  wgmmaShared<kTransA, kTransB>(T{}, d, a, b, accumulate);
}
/** With A from registers. */
template <class T, int N, int kTransB = 0>
SIMT_DEVICE void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  wgmmaFragments<kTransB>(T{}, d, a, b, accumulate);
}
#else
namespace emu {
struct WgmmaForm {
  Element type;
  int n;
  bool transA, transB, fragments;
};
void groupMultiply(const WgmmaForm& form, float* d, uint64_t a, const uint32_t* fragment, uint64_t b, bool accumulate,
                   Where where);
void groupWait(int pending, Where where);
}  // namespace emu
void wgmmaFence(SIMT_WHERE);
void wgmmaCommit(SIMT_WHERE);
template <int N>
void wgmmaWait(SIMT_WHERE) {
  emu::groupWait(N, where);
}
template <int R>
void wgmmaHold(float (&)[R]) {}
template <class T, int N, int kTransA = 0, int kTransB = 0>
void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, SIMT_WHERE) {
  static_assert(emu::kElement<T> != emu::Element::tf32 || (!kTransA && !kTransB), "tf32 operands are K-major");
  emu::groupMultiply({emu::kElement<T>, N, kTransA != 0, kTransB != 0, false}, d, a, nullptr, b, accumulate, where);
}
template <class T, int N, int kTransB = 0>
void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, SIMT_WHERE) {
  static_assert(emu::kElement<T> != emu::Element::tf32 || !kTransB, "tf32 operands are K-major");
  emu::groupMultiply({emu::kElement<T>, N, false, kTransB != 0, true}, d, 0, a, b, accumulate, where);
}
#endif

}  // namespace simt
