// The race detector's shadow: for each granule of memory its last write and up to three reads since, by whom and when.
// The kernel is compiled with the compiler's thread sanitizer, whose hooks, defined here, look at every access.
//
// A granule is as large as the smallest access its region has seen, at most 16 bytes, so that neighbours of 2 bytes do
// not count as one. Where more than three threads read at once, which reads are kept is random: a missing barrier
// concerns many granules, so it is seen all the same.
#ifdef SIMT_RACE
#include "shadow.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>

extern "C" char __executable_start;

namespace simt::emu::race {
namespace {

enum class Kind { read, write, atomic, asyncRead, asyncWrite };

// Block and epoch and thread in one word; 0 is no access.
struct Stamp {
  uint32_t block = 0, epoch : 22, thread : 10;
  uint32_t pc = 0;
  Kind kind = Kind::read;
  Stamp() : epoch(0), thread(0) {}
  bool none() const { return epoch == 0; }
};

struct Cell {
  Stamp write, reads[3];
};

struct Region {
  const char* at = nullptr;
  size_t bytes = 0;
  int shift = 4;  // log2 of the granule
  uint64_t launch = 0;
  std::vector<Cell> cells;

  void clear(uint64_t now) {
    launch = now;
    std::fill(cells.begin(), cells.end(), Cell());
  }
  void resize() { cells.assign((bytes + (size_t{1} << shift) - 1) >> shift, Cell()); }
  void refine(int finer) {
    std::vector<Cell> old = std::move(cells);
    const int difference = shift - finer;
    shift = finer;
    resize();
    for (size_t i = 0; i < cells.size(); ++i) cells[i] = old[i >> difference];
  }
};

std::map<uintptr_t, Region> global;  // by end, so that upper_bound finds the one that holds an address
std::vector<Region> shared;
uint64_t launch = 0, random = 1;
Region* lastGlobal = nullptr;

// Where the emulator accessed memory for a lane, a place is a line of the source.
constexpr uint32_t kLine = 0x80000000u;

std::string lineOf(uint32_t pc) {
  if (pc & kLine) return "line " + std::to_string(pc & ~kLine);
  char command[96], text[512] = "?";
  std::snprintf(command, sizeof command, "addr2line -e /proc/%d/exe 0x%x", static_cast<int>(getpid()), pc);
  if (FILE* pipe = popen(command, "r")) {
    if (!std::fgets(text, sizeof text, pipe)) std::strcpy(text, "?");
    pclose(pipe);
  }
  text[std::strcspn(text, "\n ")] = 0;
  return text;
}

std::string placeOf(uint32_t pc, Where where) {
  return !(pc & kLine) ? lineOf(pc) : std::string(where.file) + ":" + std::to_string(where.line);
}

Region* regionOf(const Lane& lane, const char* at, size_t bytes, uint32_t pc, Where where) {
  const char* space = lane.owner->shared;
  if (at >= space && at < space + kSharedSpace) {
    for (Region& region : shared)
      if (at >= region.at && at + bytes <= region.at + region.bytes) return &region;
    fault("shared memory out of bounds", where, "%zu bytes at %s lie in no piece of the block's shared memory", bytes,
          placeOf(pc, where).c_str());
  }
  const char* stack = static_cast<const char*>(lane.fiber.stack);
  if (at >= stack && at < stack + lane.fiber.size) return nullptr;
  if (lastGlobal && at >= lastGlobal->at && at < lastGlobal->at + lastGlobal->bytes) return lastGlobal;
  const auto it = global.upper_bound(reinterpret_cast<uintptr_t>(at));
  if (it == global.end() || at < it->second.at) return nullptr;
  lastGlobal = &it->second;
  if (lastGlobal->launch != launch) lastGlobal->clear(launch);
  return lastGlobal;
}

const char* name(Kind kind) {
  constexpr const char* kNames[] = {"read", "write", "atomic update", "asynchronous read", "asynchronous write"};
  return kNames[static_cast<int>(kind)];
}

[[noreturn]] void report(const Lane& lane, const Region& region, size_t cell, const Stamp& now, const Stamp& then,
                         const char* why, Where where) {
  const bool inShared = region.at >= lane.owner->shared && region.at < lane.owner->shared + kSharedSpace;
  fault("race", where, "%s at %s and %s by thread %u%s at %s: bytes from %zu of %s of %zu bytes; %s", name(now.kind),
        placeOf(now.pc, where).c_str(), name(then.kind), then.thread,
        then.block != now.block ? (" of block " + std::to_string(then.block)).c_str() : "", lineOf(then.pc).c_str(),
        cell << region.shift, inShared ? "a piece of shared memory" : "a buffer", region.bytes, why);
}

constexpr const char* kUnordered = "nothing orders the two";

bool ordered(const Lane& lane, const Stamp& then) { return knows(lane, then.block, then.thread, then.epoch); }

void access(Lane& lane, const void* address, size_t bytes, Kind kind, uint32_t pc, Where where) {
  const char* at = static_cast<const char*>(address);
  Region* region = bytes ? regionOf(lane, at, bytes, pc, where) : nullptr;
  if (!region) return;
  const size_t offset = at - region->at;
  const size_t odd = offset | bytes | 16;
  const int finest = __builtin_ctzl(odd);
  if (finest < region->shift) region->refine(finest);
  Stamp now;
  now.block = static_cast<uint32_t>(lane.owner->number);
  now.epoch = lane.race.epoch;
  now.thread = static_cast<uint32_t>(lane.index);
  now.pc = pc;
  now.kind = kind;
  const size_t last = std::min((offset + bytes - 1) >> region->shift, region->cells.size() - 1);
  for (size_t i = offset >> region->shift; i <= last; ++i) {
    Cell& cell = region->cells[i];
    const Stamp& then = cell.write;
    if (!then.none() && !(kind == Kind::atomic && then.kind == Kind::atomic) && !ordered(lane, then))
      report(lane, *region, i, now, then, kUnordered, where);
    if (kind == Kind::asyncRead && !then.none() && then.kind != Kind::asyncWrite &&
        !proxyKnows(lane, then.block, then.thread, then.epoch))
      report(lane, *region, i, now, then, "the writer has not fenced it for the async proxy", where);
    if (kind == Kind::read || kind == Kind::asyncRead) {
      Stamp* place = nullptr;
      for (Stamp& read : cell.reads)
        if (read.none() || ordered(lane, read)) place = &read;
      if (!place) place = &cell.reads[nextRandom(random) % 3];
      *place = now;
    } else {
      for (Stamp& read : cell.reads) {
        if (!read.none() && !ordered(lane, read)) report(lane, *region, i, now, read, kUnordered, where);
        read = Stamp();
      }
      cell.write = now;
    }
  }
}

}  // namespace

void launchBegins() {
  ++launch;
  lastGlobal = nullptr;  // so that each region is looked up, and cleared, once
  forgetPublished();
}

void begin(Block& block) {
  shared.clear();
  clocksBegin(block);
}

void addShared(Block&, const void* at, size_t bytes) {
  shared.emplace_back();
  shared.back().at = static_cast<const char*>(at);
  shared.back().bytes = bytes;
  shared.back().resize();
}

void addGlobal(const void* at, size_t bytes) {
  if (!bytes) return;
  Region& region = global[reinterpret_cast<uintptr_t>(at) + bytes];
  region.at = static_cast<const char*>(at);
  region.bytes = bytes;
  region.resize();
}

void removeGlobal(const void* at) {
  lastGlobal = nullptr;
  for (auto it = global.begin(); it != global.end(); ++it) {
    if (it->second.at != at) continue;
    global.erase(it);
    return;
  }
}

void read(Lane& lane, const void* at, size_t bytes, Where where) {
  access(lane, at, bytes, Kind::read, kLine | static_cast<uint32_t>(where.line), where);
}
void write(Lane& lane, const void* at, size_t bytes, Where where) {
  access(lane, at, bytes, Kind::write, kLine | static_cast<uint32_t>(where.line), where);
}
void asyncRead(Lane& lane, const void* at, size_t bytes, Where where) {
  access(lane, at, bytes, Kind::asyncRead, kLine | static_cast<uint32_t>(where.line), where);
}
void asyncWrite(Lane& lane, const void* at, size_t bytes, Where where) {
  access(lane, at, bytes, Kind::asyncWrite, kLine | static_cast<uint32_t>(where.line), where);
}
void atomic(Lane& lane, const void* at, size_t bytes, Where where) {
  access(lane, at, bytes, Kind::atomic, kLine | static_cast<uint32_t>(where.line), where);
  publish(lane, at);
}

namespace {

void hook(const void* at, size_t bytes, Kind kind, void* pc) {
  if (!here) return;
  const uintptr_t call = reinterpret_cast<uintptr_t>(pc) - 1 - reinterpret_cast<uintptr_t>(&__executable_start);
  access(self(), at, bytes, kind, static_cast<uint32_t>(call), {"the kernel", 0});
}

}  // namespace
}  // namespace simt::emu::race

// The compiler's calls.
using simt::emu::race::hook;
using simt::emu::race::Kind;
#define SIMT_HOOKS(bytes)                                                                                   \
  void __tsan_read##bytes(void* at) { hook(at, bytes, Kind::read, __builtin_return_address(0)); }           \
  void __tsan_write##bytes(void* at) { hook(at, bytes, Kind::write, __builtin_return_address(0)); }         \
  void __tsan_unaligned_read##bytes(void* at) { hook(at, bytes, Kind::read, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##bytes(void* at) { hook(at, bytes, Kind::write, __builtin_return_address(0)); }
extern "C" {
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
void __tsan_read_range(void* at, size_t bytes) { hook(at, bytes, Kind::read, __builtin_return_address(0)); }
void __tsan_write_range(void* at, size_t bytes) { hook(at, bytes, Kind::write, __builtin_return_address(0)); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
#endif
