// Fibers: stacks that a host thread switches between. Twelve instructions on x86-64, ucontext elsewhere;
// AddressSanitizer is told of every switch.
#pragma once
#include <cstddef>
#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#define SIMT_USES_UCONTEXT 1
#include <ucontext.h>
#endif

namespace simt::emu {

struct Fiber {
  void* stack = nullptr;  // lowest address; nullptr for the host thread's own stack
  size_t size = 0;
  void* fake = nullptr;  // AddressSanitizer's state while switched away
#ifdef SIMT_USES_UCONTEXT
  ucontext_t context;
#else
  void* pointer = nullptr;  // its stack pointer while switched away
#endif
};

/** Makes `fiber`, whose stack is set, begin `entry` at the next switch to it. `entry` never returns. */
void fiberPrepare(Fiber& fiber, void (*entry)());
void fiberSwitch(Fiber& from, Fiber& to);
/** As fiberSwitch, from a fiber that will not be switched to again. */
void fiberLeave(Fiber& from, Fiber& to);
/** To be called first in `entry`. */
void fiberEntered();

/** `count` stacks with a guard page below each. */
char* fiberStacks(int count, size_t size);
void fiberFree(char* stacks, int count, size_t size);

}  // namespace simt::emu
