// Atomic operations; blocks on other host threads see them as such.
#include "block.h"

namespace simt::emu {
namespace {

template <class T, class Fn>
T update(T* at, Where where, Fn&& fn) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(T))
    fault("misaligned access", where, "an atomic operation on %zu bytes at %p", sizeof(T), static_cast<void*>(at));
  race::atomic(self(), at, sizeof(T), where);
  T old;
  __atomic_load(at, &old, __ATOMIC_SEQ_CST);
  for (;;) {
    T next = fn(old);
    if (__atomic_compare_exchange(at, &old, &next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return old;
  }
}

}  // namespace
}  // namespace simt::emu

using simt::emu::update;
using Where = simt::emu::Where;

#define SIMT_ATOMIC(T, name, expression)                              \
  T name(T* at, T value, Where where) {                               \
    return update(at, where, [=](T old) -> T { return expression; }); \
  }
SIMT_ATOMIC(int, atomicAdd, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
SIMT_ATOMIC(unsigned, atomicAdd, old + value)
SIMT_ATOMIC(unsigned long long, atomicAdd, old + value)
SIMT_ATOMIC(float, atomicAdd, old + value)
SIMT_ATOMIC(double, atomicAdd, old + value)
SIMT_ATOMIC(int, atomicMin, min(old, value))
SIMT_ATOMIC(unsigned, atomicMin, min(old, value))
SIMT_ATOMIC(int, atomicMax, max(old, value))
SIMT_ATOMIC(unsigned, atomicMax, max(old, value))
SIMT_ATOMIC(unsigned, atomicOr, old | value)
SIMT_ATOMIC(unsigned, atomicAnd, old& value)
SIMT_ATOMIC(unsigned, atomicInc, old >= value ? 0 : old + 1)
SIMT_ATOMIC(int, atomicExch, ((void)old, value))
SIMT_ATOMIC(unsigned, atomicExch, ((void)old, value))
SIMT_ATOMIC(float, atomicExch, ((void)old, value))
#define SIMT_COMPARE(T)                                                                 \
  T atomicCAS(T* at, T compare, T value, Where where) {                                 \
    return update(at, where, [=](T old) -> T { return old == compare ? value : old; }); \
  }
SIMT_COMPARE(int)
SIMT_COMPARE(unsigned)
SIMT_COMPARE(unsigned long long)
