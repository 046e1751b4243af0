// Shared memory. `__shared__` itself is not used, because g++ has no like of it:
//
//   SIMT_SHARED(float, partial, [8][33]);            // static; 16-byte aligned
//   simt::SharedArena arena;                         // dynamic: once in a kernel, by all threads alike
//   bf16* tile = arena.take<bf16>(128 * 64, 1024);   // a piece, at a multiple of 1024
//
// The host sizes a launch with the same calls: SharedLayout().take<bf16>(128 * 64, 1024).bytes(). To use memory twice,
// cast a piece; a piece has no neighbour that may be relied on. The emulator fills all of it with NaN before each
// block, puts red zones between the pieces, and starts the dynamic memory at an address that is a multiple of 16 and of
// no more.
#pragma once
#include "simt/types.h"

namespace simt {

constexpr size_t roundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/** Counts the bytes that a SharedArena's pieces need, wherever its memory starts. */
class SharedLayout {
 public:
  template <class T>
  constexpr SharedLayout& take(size_t count, size_t align = 16) {
    end_ = roundUp(end_, align) + count * sizeof(T);
    align_ = align > align_ ? align : align_;
    return *this;
  }
  constexpr size_t bytes() const { return end_ + (align_ - 16); }

 private:
  size_t end_ = 0, align_ = 16;
};

#ifdef __CUDACC__
#define SIMT_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__

/** The address that shared-memory instructions take. */
SIMT_DEVICE uint32_t sharedAddress(const void* at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }

class SharedArena {
 public:
  template <class T>
  SIMT_DEVICE T* take(int count, int align = 16) {
    extern __shared__ __align__(16) unsigned char simtDynamicShared[];
    const uint32_t start = sharedAddress(simtDynamicShared);
    const uint32_t at = (start + end_ + align - 1) & ~static_cast<uint32_t>(align - 1);
    end_ = at - start + count * static_cast<uint32_t>(sizeof(T));
    return reinterpret_cast<T*>(simtDynamicShared + (at - start));
  }

 private:
  uint32_t end_ = 0;
};
#else
namespace emu {
void* staticShared(const void* key, size_t bytes, const char* name, Where where);
void* takeShared(int piece, size_t bytes, size_t align, Where where);
}  // namespace emu

#define SIMT_SHARED(T, name, ...)                             \
  static const char name##Key = 0;                            \
  auto& name = *static_cast<simt::emu::Same<T __VA_ARGS__>*>( \
      simt::emu::staticShared(&name##Key, sizeof(simt::emu::Same<T __VA_ARGS__>), #name, {__FILE__, __LINE__}))

namespace emu {
template <class T>
struct SameAs {
  using type = T;
};
template <class T>
using Same = typename SameAs<T>::type;
}  // namespace emu

/** The address that shared-memory instructions take. */
uint32_t sharedAddress(const void* at);

class SharedArena {
 public:
  template <class T>
  T* take(int count, int align = 16, SIMT_WHERE) {
    return static_cast<T*>(emu::takeShared(pieces_++, count * sizeof(T), align, where));
  }

 private:
  int pieces_ = 0;
};
#endif

}  // namespace simt
