// Blocks, lanes and the switching between them; faults and the report of a deadlock.
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "block.h"
#include "hopper_state.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace simt::emu {

__thread const Place* here;

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStack = 256 << 10;
#else
constexpr size_t kStack = 96 << 10;
#endif
constexpr size_t kColour = 17 * 64;
constexpr size_t kGuard = 4096;

std::mutex faultLock;
std::string firstFault;

void laneMain() {
  fiberEntered();
  self().owner->launched->task->body(self().owner->launched->task->arguments);
  self().owner->leave(self());
}

std::string kernelName(const char* pretty) {
  const char* from = strstr(pretty, "kKernel = ");
  if (!from) return pretty;
  std::string name = from + 10;
  if (!name.empty() && name.back() == ']') name.pop_back();
  return name;
}

std::string format(const char* text, ...) {
  char line[512];
  va_list list;
  va_start(list, text);
  vsnprintf(line, sizeof line, text, list);
  va_end(list);
  return line;
}

std::string inner(const Block& block) {
  const Place& at = block.lanes[0];
  return format("kernel %s, block (%u, %u, %u)", kernelName(block.launched->name).c_str(), at.block.x, at.block.y,
                at.block.z);
}

}  // namespace

std::string placeOf(const Block& block) { return " [" + inner(block) + "]"; }

uint64_t nextRandom(uint64_t& state) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void setFault(std::string text) {
  const std::lock_guard<std::mutex> hold(faultLock);
  if (firstFault.empty()) firstFault = std::move(text);
}

std::string takeFault() {
  const std::lock_guard<std::mutex> hold(faultLock);
  return std::move(firstFault);
}

void fault(const char* kind, Where where, const char* text, ...) {
  char line[1024];
  va_list list;
  va_start(list, text);
  vsnprintf(line, sizeof line, text, list);
  va_end(list);
  if (!here) {
    setFault(format("%s: ", kind) + line);
    std::fprintf(stderr, "%s: %s (outside a kernel)\n", kind, line);
    std::abort();
  }
  const Lane& lane = self();
  setFault(
      format("%s: ", kind) + line + " [" + inner(*lane.owner) +
      format(", thread (%u, %u, %u), %s:%d]", lane.thread.x, lane.thread.y, lane.thread.z, where.file, where.line));
  lane.owner->abandon();
}

Block::Block() : lanes(new Lane[kMaxThreads]), hopper(new Hopper) {
  char* stacks = fiberStacks(kMaxThreads, kStack);
  for (int i = 0; i < kMaxThreads; ++i) {
    lanes[i].fiber.stack = stacks + i * (kStack + kGuard);
    // Lanes do the same at the same depth: tops an equal distance apart would all fall into one set of the caches.
    lanes[i].fiber.size = kStack - i % kWarp * kColour;
    lanes[i].owner = this;
    lanes[i].index = i;
    lanes[i].lane = i % kWarp;
    lanes[i].warp = &warp[i / kWarp];
  }
  for (int i = 0; i < kMaxWarps; ++i) warp[i].owner = this, warp[i].index = i;
  shared = static_cast<char*>(aligned_alloc(4096, kSharedSpace));
}

Block::~Block() {
  fiberFree(static_cast<char*>(lanes[0].fiber.stack), kMaxThreads, kStack);
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(shared, kSharedSpace);
#endif
  free(shared);
}

bool Block::run(const Launched& from, uint3 index, uint64_t which) {
  launched = &from;
  number = which;
  const dim3 size = from.at.block;
  threads = static_cast<int>(size.x * size.y * size.z);
  warps = (threads + kWarp - 1) / kWarp;
  alive = threads;
  random = from.seed ? from.seed * 0x2545f4914f6cdd1du + which + 1 : 0;
#ifdef __SANITIZE_ADDRESS__
  // What an abandoned fiber left poisoned would be found by the next.
  if (failed)
    for (int i = 0; i < kMaxThreads; ++i) __asan_unpoison_memory_region(lanes[i].fiber.stack, kStack);
#endif
  failed = false;
  readyRanks = 0;
  for (Barrier& barrier : barriers) barrier = Barrier();
  for (int w = 0; w < warps; ++w) {
    const int count = threads - w * kWarp;
    warp[w].members = count >= kWarp ? 0xffffffffu : (1u << count) - 1;
    warp[w].exited = 0;
    warp[w].ready = 0;
    warp[w].start = 0;
    for (Meeting& meeting : warp[w].meetings) meeting.mask = 0;
  }
  drawPriorities();
  for (int i = 0; i < threads; ++i) {
    Lane& lane = lanes[i];
    lane.thread = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    lane.block = index;
    lane.blockSize = size;
    lane.gridSize = from.at.grid;
    lane.done = false;
    lane.copies.clear();
    lane.groups.clear();
    fiberPrepare(lane.fiber, laneMain);
    makeReady(lane);
  }
  sharedBegin(*this);
  race::begin(*this);
  hopperBegin(*this);
  Lane* first = next(nullptr);
  here = first;
  fiberSwitch(host, first->fiber);
  here = nullptr;
  failed = failed || !sharedIntact(*this);
  return !failed;
}

// Ranks are the order in which warps get to run: their own order, or one drawn at random.
void Block::drawPriorities() {
  uint32_t ready = 0;
  for (int i = 0; i < warps; ++i) byRank[i] = &warp[i];
  if (random) {
    for (int i = warps - 1; i > 0; --i) std::swap(byRank[i], byRank[nextRandom(random) % (i + 1)]);
  }
  for (int i = 0; i < warps; ++i) {
    byRank[i]->rank = i;
    if (random) byRank[i]->start = static_cast<int>(nextRandom(random) % kWarp);
    if (byRank[i]->ready) ready |= 1u << i;
  }
  readyRanks = ready;
}

void Block::makeReady(Lane& lane) {
  lane.waitsFor = nullptr;
  lane.warp->ready |= 1u << lane.lane;
  readyRanks |= 1u << lane.warp->rank;
}

Lane* Block::next(Warp* w) {
  if (!w || !w->ready) {
    if (!readyRanks) return nullptr;
    w = byRank[__builtin_ctz(readyRanks)];
  }
  const uint32_t turned = w->start ? w->ready >> w->start | w->ready << (kWarp - w->start) : w->ready;
  const int lane = (__builtin_ctz(turned) + w->start) % kWarp;
  w->ready &= ~(1u << lane);
  if (!w->ready) readyRanks &= ~(1u << w->rank);
  return &lanes[w->index * kWarp + lane];
}

void Block::switchTo(Lane& from, Lane& to) {
  if (&from == &to) return;
  here = &to;
  fiberSwitch(from.fiber, to.fiber);
}

void Block::park(Lane& lane, const char* what, Where where) {
  lane.waitsFor = what;
  lane.where = where;
  Lane* to = next(lane.warp);
  while (!to && hopperProgress(*this)) to = next(lane.warp);
  if (!to) {
    setFault(deadlock());
    abandon();
  }
  switchTo(lane, *to);
}

void Block::yield(Lane& lane, const char* what, Where where) {
  lane.waitsFor = what;
  lane.where = where;
  // Everyone else first: the lane is not ready while its successor is chosen.
  Lane* to = next(nullptr);
  if (!to) hopperProgress(*this), to = next(nullptr);
  if (!to) return;
  makeReady(lane);
  switchTo(lane, *to);
}

void Block::leave(Lane& lane) {
  hopperExit(lane);
  lane.done = true;
  lane.warp->exited |= 1u << lane.lane;
  --alive;
  meetingsAfterExit(*lane.warp);
  Lane* to = next(lane.warp);
  while (!to && alive && hopperProgress(*this)) to = next(lane.warp);
  if (!to && alive) {
    setFault(deadlock());
    abandon();
  }
  if (to) {
    here = to;
    fiberLeave(lane.fiber, to->fiber);
  } else {
    fiberLeave(lane.fiber, host);
  }
  __builtin_unreachable();
}

void Block::abandon() {
  failed = true;
  fiberLeave(self().fiber, host);
  __builtin_unreachable();
}

std::string Block::deadlock() const {
  std::string text = "deadlock: no thread can go on";
  int exited = 0;
  std::vector<bool> told(threads);
  for (int i = 0; i < threads; ++i) {
    const Lane& lane = lanes[i];
    exited += lane.done;
    if (lane.done || told[i]) continue;
    // One entry for all threads that wait at the same place, as ranges.
    std::string ranges;
    int count = 0;
    for (int k = i; k < threads; ++k) {
      const auto same = [&](int at) {
        return !lanes[at].done && lanes[at].where.line == lane.where.line && lanes[at].where.file == lane.where.file &&
               lanes[at].waitsFor == lane.waitsFor;
      };
      if (!same(k)) continue;
      int last = k;
      while (last + 1 < threads && same(last + 1)) ++last;
      for (int at = k; at <= last; ++at) told[at] = true;
      count += last - k + 1;
      if (ranges.size() < 80) ranges += format(k == last ? " %d" : " %d..%d", k, last);
      k = last;
    }
    text += format("; %d wait for %s at %s:%d (threads%s)", count, lane.waitsFor ? lane.waitsFor : "?", lane.where.file,
                   lane.where.line, ranges.c_str());
  }
  if (exited) text += format("; %d have exited", exited);
  return text + hopperReport(*this) + placeOf(*this);
}

}  // namespace simt::emu
