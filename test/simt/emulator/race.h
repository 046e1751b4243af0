// The race detector's side of the emulator; without SIMT_RACE nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "simt/builtins.h"

namespace simt::emu {

struct Block;
struct Lane;
struct Warp;

namespace race {

#ifdef SIMT_RACE
#else
struct Clock {};
struct Thread {};
inline void launchBegins() {}
inline void begin(Block&) {}
inline void addShared(Block&, const void*, size_t) {}
inline void read(Lane&, const void*, size_t, Where) {}
inline void write(Lane&, const void*, size_t, Where) {}
inline void atomic(Lane&, const void*, size_t, Where) {}
inline void fence(Lane&) {}
inline void syncWarp(Warp&, uint32_t) {}
inline void releaseBarrier(Lane&, Clock&) {}
inline void acquireBarrier(Lane&, const Clock&) {}
#endif

}  // namespace race
}  // namespace simt::emu
