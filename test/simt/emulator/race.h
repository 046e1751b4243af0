// The race detector's side of the emulator; without SIMT_RACE nothing.
//
// Happens-before by vector clocks: a thread's clock holds, for each thread of its block, the last epoch of that thread
// whose accesses are ordered before what this one does now. Barriers, __syncwarp and mbarriers join clocks; shuffles
// and votes do not. Clocks are shared between the threads that a barrier made equal, so a barrier costs one clock and
// not one a thread.
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
using Times = std::vector<uint32_t>;

/** What threads that came to a barrier have done and known. */
struct Clock {
  std::shared_ptr<Times> times;
  std::shared_ptr<const Times> joined;  // the clock that was merged last
};
struct Thread {
  std::shared_ptr<const Times> known;
  uint32_t epoch = 1;
  std::shared_ptr<const Times> fenced;   // what its last __threadfence covers
  std::vector<const void*> seenAtomics;  // locations it updated since then
  std::vector<uint32_t> proxyFences;     // epochs that end with a fence for the async proxy
};

/** A new launch: what earlier ones did is ordered before it. */
void launchBegins();
void begin(Block& block);
void addShared(Block& block, const void* at, size_t bytes);
void addGlobal(const void* at, size_t bytes);
void removeGlobal(const void* at);

/** Accesses that the emulator makes for a lane. */
void read(Lane& lane, const void* at, size_t bytes, Where where);
void write(Lane& lane, const void* at, size_t bytes, Where where);
void atomic(Lane& lane, const void* at, size_t bytes, Where where);

/** Accesses by the async proxy, issued by `lane`: what it reads must have been fenced by its writers. */
void asyncRead(Lane& lane, const void* at, size_t bytes, Where where);
void asyncWrite(Lane& lane, const void* at, size_t bytes, Where where);
void proxyFence(Lane& lane);
/** Adds one clock to another. */
void add(Clock& to, const Clock& from);

void fence(Lane& lane);
void syncWarp(Warp& warp, uint32_t lanes);
/** Adds what `lane` has done and knows to `clock`. */
void release(Lane& lane, Clock& clock);
/** Adds `clock` to what `lane` knows; cheaper where the lane's own release is part of it. */
void acquire(Lane& lane, const Clock& clock);
void acquireOwn(Lane& lane, const Clock& clock);
#else
struct Clock {};
struct Thread {};
inline void launchBegins() {}
inline void begin(Block&) {}
inline void addShared(Block&, const void*, size_t) {}
inline void addGlobal(const void*, size_t) {}
inline void removeGlobal(const void*) {}
inline void read(Lane&, const void*, size_t, Where) {}
inline void write(Lane&, const void*, size_t, Where) {}
inline void atomic(Lane&, const void*, size_t, Where) {}
inline void asyncRead(Lane&, const void*, size_t, Where) {}
inline void asyncWrite(Lane&, const void*, size_t, Where) {}
inline void proxyFence(Lane&) {}
inline void add(Clock&, const Clock&) {}
inline void fence(Lane&) {}
inline void syncWarp(Warp&, uint32_t) {}
inline void release(Lane&, Clock&) {}
inline void acquire(Lane&, const Clock&) {}
inline void acquireOwn(Lane&, const Clock&) {}
#endif

}  // namespace race
}  // namespace simt::emu
