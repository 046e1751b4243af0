#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __SANITIZE_ADDRESS__
// Every exit of a fiber would otherwise ask the system for the signal stack.
extern "C" const char* __asan_default_options() { return "use_sigaltstack=0"; }
#endif

namespace simt::emu {
namespace {

constexpr size_t kGuard = 4096;

#ifdef __SANITIZE_ADDRESS__
// The host thread's stack, learnt at the first switch away from it.
thread_local const void* hostStack;
thread_local size_t hostSize;
thread_local bool hostKnown;

void announce(Fiber* from, const Fiber& to) {
  const void* stack = to.stack ? to.stack : hostStack;
  __sanitizer_start_switch_fiber(from ? &from->fake : nullptr, stack, to.stack ? to.size : hostSize);
}
void arrived(void* fake) {
  const void* stack;
  size_t size;
  __sanitizer_finish_switch_fiber(fake, &stack, &size);
  if (!hostKnown) hostStack = stack, hostSize = size, hostKnown = true;
}
#else
void announce(Fiber*, const Fiber&) {}
void arrived(void*) {}
#endif

}  // namespace

#ifdef SIMT_USES_UCONTEXT
void fiberPrepare(Fiber& fiber, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = fiber.size;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}
namespace {
void jump(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }
}  // namespace
#else
// Saves the registers that a call preserves on the stack that is left, and takes them from the one that is entered.
extern "C" void simtSwitch(void** from, void* to);
asm(R"(
.text
.globl simtSwitch
.type simtSwitch, @function
simtSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simtSwitch, .-simtSwitch
)");

void fiberPrepare(Fiber& fiber, void (*entry)()) {
  // Six registers, the return address, and one word: the stack is aligned as after a call.
  void** top = reinterpret_cast<void**>(static_cast<char*>(fiber.stack) + fiber.size) - 1;
  top[0] = nullptr;
  top[-1] = reinterpret_cast<void*>(entry);
  for (int i = 2; i < 8; ++i) top[-i] = nullptr;
  fiber.pointer = top - 7;
}
namespace {
inline void jump(Fiber& from, Fiber& to) { simtSwitch(&from.pointer, to.pointer); }
}  // namespace
#endif

void fiberSwitch(Fiber& from, Fiber& to) {
  announce(&from, to);
  jump(from, to);
  arrived(from.fake);
}

void fiberLeave(Fiber& from, Fiber& to) {
  announce(nullptr, to);
  jump(from, to);
}

void fiberEntered() { arrived(nullptr); }

char* fiberStacks(int count, size_t size) {
  void* at = mmap(nullptr, count * (size + kGuard), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
  if (at == MAP_FAILED) abort();
  for (int i = 0; i < count; ++i) mprotect(static_cast<char*>(at) + i * (size + kGuard), kGuard, PROT_NONE);
  return static_cast<char*>(at) + kGuard;
}

void fiberFree(char* stacks, int count, size_t size) { munmap(stacks - kGuard, count * (size + kGuard)); }

}  // namespace simt::emu
