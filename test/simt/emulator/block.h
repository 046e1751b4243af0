// A block in execution: its lanes, warps and barriers, and the scheduler that switches between lanes.
//
// A lane runs until it has to wait; then the next ready lane of its warp runs, and only when its warp has none the warp
// of the highest priority that has one. So a warp gets as far as it can before another starts: that exposes missing
// barriers that any fair order hides. A meeting of lanes is computed by the one that comes last, from pointers the
// others left.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator.h"
#include "fiber.h"
#include "race.h"
#include "simt/builtins.h"

namespace simt::emu {

constexpr size_t kSharedSpace = 1 << 20;
constexpr int kWarp = 32, kMaxWarps = 32, kMaxThreads = 1024;

struct Block;
struct Warp;

struct Copy {
  void* to;
  const void* from;
  int bytes, valid;
};

struct Lane : Place {
  Fiber fiber;
  Block* owner = nullptr;
  Warp* warp = nullptr;
  int index = 0, lane = 0;  // in the block, in the warp
  bool done = false;
  const char* waitsFor = nullptr;  // nullptr while it can run
  Where where{};
  void* left = nullptr;  // what it brought to the meeting it waits for
  // Asynchronous copies not landed, and where the groups among them end.
  std::vector<Copy> copies;
  std::vector<size_t> groups;
  race::Thread race;
};

/** A meeting of lanes of one warp. */
struct Meeting {
  uint32_t mask = 0, came = 0;  // mask 0: not in use
  bool aligned = false;         // all 32 lanes, none of which may exit before
  void (*compute)(Warp& warp, Meeting& meeting) = nullptr;
  const char* what = nullptr;
  int operand = 0;
  void* left[kWarp];
};

struct Warp {
  Block* owner;
  int index, rank;
  uint32_t members, exited, ready;
  int start;  // the lane that is asked first whether it is ready
  Meeting meetings[4];
};

struct Barrier {
  int expected = 0, came = 0;  // threads
  uint32_t arrived[kMaxWarps] = {}, waiting[kMaxWarps] = {};
  int predicates = 0, result = 0;  // of __syncthreads_or and _count
  race::Clock clock;
};

struct StaticPiece {
  const void* key;
  char* at;
};
struct Piece {
  char* at;
  size_t bytes, align;
};

struct Hopper;  // what only sm_90 kernels have: mbarriers, bulk copies, warpgroups

struct Launched {
  const char* name;
  Launch at;
  const Task* task;
  uint64_t seed;  // 0: in order
};

struct Block {
  Block();
  ~Block();
  /** Runs block `index` of the grid to its end; false if it faulted. */
  bool run(const Launched& launched, uint3 index, uint64_t number);

  // The scheduler.
  void makeReady(Lane& lane);
  void park(Lane& lane, const char* what, Where where);
  /** Another ready lane runs before `lane` goes on. */
  void yield(Lane& lane, const char* what, Where where);
  [[noreturn]] void leave(Lane& lane);
  [[noreturn]] void abandon();
  void drawPriorities();

  Lane* next(Warp* warp);
  void switchTo(Lane& from, Lane& to);
  std::string deadlock() const;

  const Launched* launched = nullptr;
  int threads = 0, warps = 0, alive = 0;
  uint64_t number = 0;  // of the block in its grid
  uint64_t random = 0;
  bool failed = false;
  uint32_t readyRanks = 0;
  Warp* byRank[kMaxWarps];
  Fiber host;
  std::unique_ptr<Lane[]> lanes;
  Warp warp[kMaxWarps];
  Barrier barriers[16];

  // Shared memory: static pieces, then dynamic ones, with red zones between.
  char* shared;
  size_t sharedEnd = 0;
  size_t staticBytes = 0, dynamicBytes = 0, dynamicAlign = 16;  // as the hardware lays them out
  std::vector<StaticPiece> statics;
  std::vector<Piece> pieces;
  std::vector<int> taken;  // indices of the dynamic ones

  std::unique_ptr<Hopper> hopper;
};

inline Lane& self() { return *const_cast<Lane*>(static_cast<const Lane*>(here)); }

uint64_t nextRandom(uint64_t& state);

// Shared memory (shared.cc).
void sharedBegin(Block& block);
/** Looks at the red zones; false, with a fault set, if one was written to. */
bool sharedIntact(Block& block);
/** Faults unless [at, at + bytes) lies in one piece of the running block's shared memory, at a multiple of `align`. */
void requireShared(const void* at, size_t bytes, size_t align, Where where);

/** Brings the running lane and what `brought` points to to the meeting of `mask`; `compute` runs once, when all lanes
 * of the mask that have not exited are there, and all go on after it. Lanes that come with another `compute` or
 * `operand` are a fault. */
void meet(uint32_t mask, void (*compute)(Warp&, Meeting&), int operand, void* brought, const char* what, Where where);
/** As meet for the whole warp, which no lane may have left. */
void meetAligned(void (*compute)(Warp&, Meeting&), int operand, void* brought, const char* what, Where where);
/** A lane of `warp` has ended: meetings may now be complete without it. */
void meetingsAfterExit(Warp& warp);

void setFault(std::string text);
/** " [kernel ..., block ...]". */
std::string placeOf(const Block& block);

}  // namespace simt::emu
