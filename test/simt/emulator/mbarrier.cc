// mbarriers, as objects beside the shared memory they live in, and what sm_90 adds to the life of a block.
#include <algorithm>

#include "hopper_state.h"

namespace simt::emu {
namespace {

constexpr int64_t kMostBytes = (1 << 20) - 1;
constexpr uint64_t kMostPolls = 200000;

void settle(Block& block, MbarrierState& barrier) {
  if (barrier.pending || barrier.tx) return;
  ++barrier.phase;
  barrier.pending = barrier.count;
  barrier.observed = false;
  block.hopper->polls = 0;
  barrier.completed = barrier.gathering;
  barrier.gathering = race::Clock();
  race::add(barrier.gathering, barrier.completed);
  for (Lane* lane : barrier.waiting) block.makeReady(*lane);
  barrier.waiting.clear();
}

void addBytes(MbarrierState& barrier, int64_t bytes, Where where) {
  barrier.tx += bytes;
  if (barrier.tx > kMostBytes || barrier.tx < -kMostBytes)
    fault("mbarrier misuse", where, "%lld bytes expected in one phase; at most %lld",
          static_cast<long long>(barrier.tx), static_cast<long long>(kMostBytes));
}

void arrive(Mbarrier* at, int64_t bytes, Where where) {
  Lane& lane = self();
  MbarrierState& barrier = barrierAt(at, where);
  if (barrier.pending == 0)
    fault("mbarrier misuse", where, "more arrivals in a phase than the %d it was made for", barrier.count);
  if (barrier.phase && !barrier.observed)
    fault("mbarrier misuse", where, "an arrival in phase %llu, while nobody has seen the end of the one before",
          static_cast<unsigned long long>(barrier.phase));
  addBytes(barrier, bytes, where);
  race::release(lane, barrier.gathering);
  --barrier.pending;
  settle(*lane.owner, barrier);
  hopperPerhaps(*lane.owner);
}

bool complete(Lane& lane, MbarrierState& barrier, int parity) {
  if (static_cast<int>(barrier.phase & 1) == parity) return false;
  barrier.observed = true;
  race::acquire(lane, barrier.completed);
  return true;
}

}  // namespace

MbarrierState& barrierAt(const Mbarrier* at, Where where) {
  requireShared(at, 8, 8, where);
  race::read(self(), at, 8, where);
  for (MbarrierState& barrier : self().owner->hopper->barriers)
    if (barrier.at == at) return barrier;
  fault("mbarrier misuse", where, "no barrier was initialised at %p", static_cast<const void*>(at));
}

void landed(Block& block, MbarrierState& barrier, uint64_t phase, int64_t bytes, Where where) {
  if (barrier.phase != phase)
    fault("mbarrier misuse", where, "bytes of a copy issued in phase %llu land in phase %llu: too few were expected",
          static_cast<unsigned long long>(phase), static_cast<unsigned long long>(barrier.phase));
  addBytes(barrier, -bytes, where);
  settle(block, barrier);
}

void hopperBegin(Block& block) {
  Hopper& it = *block.hopper;
  it.barriers.clear();
  it.loads.clear();
  it.stores.clear();
  it.wantRegisters.clear();
  it.freeRegisters = it.polls = 0;
  const int entry = std::min(255, 65536 / block.threads) / 8 * 8;
  for (int i = 0; i < block.warps / 4; ++i) {
    it.groups[i] = Warpgroup();
    it.groups[i].index = i;
    it.groups[i].registers = entry;
  }
}

bool hopperProgress(Block& block) {
  std::deque<BulkLoad>& loads = block.hopper->loads;
  if (loads.empty()) return false;
  // Two copies may land in any order.
  const size_t which = block.random ? nextRandom(block.random) % loads.size() : 0;
  const BulkLoad load = loads[which];
  loads.erase(loads.begin() + static_cast<long>(which));
  landLoad(block, load);
  return true;
}

void hopperPerhaps(Block& block) {
  if (block.random && nextRandom(block.random) % 4 == 0) hopperProgress(block);
}

void hopperExit(Lane& lane) {
  Hopper& it = *lane.owner->hopper;
  const auto stores = it.stores.find(lane.index);
  if (stores != it.stores.end() && !stores->second.stores.empty())
    fault("unfinished copy", stores->second.stores[0].where,
          "a thread exits before its bulk stores have read their source");
  const Warpgroup& group = it.groups[lane.warp->index / 4];
  if (!group.open.empty() || !group.groups.empty())
    fault("unfinished wgmma", lane.where, "a thread exits before wgmmaWait has returned its products");
  if (lane.owner->alive == 1 && !it.loads.empty())
    fault("unfinished copy", it.loads[0].where, "the block ends while a bulk load is under way to it");
}

std::string hopperReport(const Block& block) {
  std::string text;
  for (const MbarrierState& barrier : block.hopper->barriers) {
    if (barrier.waiting.empty()) continue;
    text += "; mbarrier at byte " + std::to_string(reinterpret_cast<const char*>(barrier.at) - block.shared) +
            " of shared memory is in phase " + std::to_string(barrier.phase) + ", lacks " +
            std::to_string(barrier.pending) + " arrivals and " + std::to_string(barrier.tx) + " bytes";
  }
  return text;
}

}  // namespace simt::emu

namespace simt {

using namespace emu;

void mbarrierInit(Mbarrier* at, int arrivals, Where where) {
  Lane& lane = self();
  std::deque<MbarrierState>& all = lane.owner->hopper->barriers;
  requireShared(at, 8, 8, where);
  if (arrivals < 1 || arrivals >= 1 << 20) fault("mbarrier misuse", where, "made for %d arrivals", arrivals);
  for (const MbarrierState& barrier : all)
    if (barrier.at == at) fault("mbarrier misuse", where, "a live barrier is initialised again");
  race::write(lane, at, 8, where);
  at->state = 0;
  MbarrierState barrier;
  barrier.at = at;
  barrier.count = barrier.pending = arrivals;
  barrier.maker = &lane;
  all.push_back(barrier);
}

void mbarrierInitFence() {
  for (MbarrierState& barrier : self().owner->hopper->barriers)
    if (barrier.maker == &self()) barrier.fenced = true;
}

void mbarrierInvalidate(Mbarrier* at, Where where) {
  const MbarrierState& barrier = barrierAt(at, where);
  if (!barrier.waiting.empty()) fault("mbarrier misuse", where, "invalidated while threads wait for it");
  race::write(self(), at, 8, where);
  std::deque<MbarrierState>& all = self().owner->hopper->barriers;
  for (const BulkLoad& load : self().owner->hopper->loads)
    if (load.barrier == &barrier) fault("mbarrier misuse", where, "invalidated while a copy is under way to it");
  // The place stays in the list, because copies point into it.
  for (MbarrierState& it : all)
    if (&it == &barrier) it.at = nullptr;
}

void mbarrierArrive(Mbarrier* at, Where where) { arrive(at, 0, where); }
void mbarrierArriveExpect(Mbarrier* at, int bytes, Where where) {
  if (bytes < 0) fault("mbarrier misuse", where, "%d bytes expected", bytes);
  arrive(at, bytes, where);
}

bool mbarrierTest(Mbarrier* at, int parity, Where where) {
  Lane& lane = self();
  MbarrierState& barrier = barrierAt(at, where);
  if (complete(lane, barrier, parity)) return true;
  Block& block = *lane.owner;
  if (++block.hopper->polls > kMostPolls)
    fault("deadlock", where, "an mbarrier is asked for ever%s", hopperReport(block).c_str());
  block.yield(lane, "an mbarrier's test", where);
  return complete(lane, barrier, parity);
}

void mbarrierWait(Mbarrier* at, int parity, Where where) {
  Lane& lane = self();
  MbarrierState& barrier = barrierAt(at, where);
  hopperPerhaps(*lane.owner);
  while (!complete(lane, barrier, parity)) {
    barrier.waiting.push_back(&lane);
    lane.owner->park(lane, "an mbarrier", where);
  }
}

}  // namespace simt
