// The race detector's clocks: what orders accesses.
#ifdef SIMT_RACE
#include <algorithm>

#include "shadow.h"

namespace simt::emu::race {
namespace {

void merge(Times& into, const Times& from) {
  for (size_t i = 0; i < into.size(); ++i) into[i] = into[i] < from[i] ? from[i] : into[i];
}

std::shared_ptr<Times> snapshot(const Lane& lane) {
  auto times = std::make_shared<Times>(*lane.race.known);
  (*times)[lane.index] = lane.race.epoch;
  return times;
}

// What blocks have published at an atomic location by a fence before the update.
struct Published {
  uint64_t block;
  std::shared_ptr<const Times> times;
};
std::unordered_map<const void*, std::vector<Published>> published;
// What the running block has learnt of others by a fence after an update.
std::unordered_map<uint64_t, std::shared_ptr<const Times>> foreign;

}  // namespace

void clocksBegin(Block& block) {
  const auto none = std::make_shared<const Times>(block.threads, 0);
  for (int i = 0; i < block.threads; ++i) {
    Thread& it = block.lanes[i].race;
    it.known = none;
    it.epoch = 1;
    it.fenced = nullptr;
    it.seenAtomics.clear();
    it.proxyFences.clear();
  }
  foreign.clear();
}

void forgetPublished() { published.clear(); }

bool knows(const Lane& lane, uint64_t block, uint32_t thread, uint32_t epoch) {
  if (block == lane.owner->number) return static_cast<int>(thread) == lane.index || (*lane.race.known)[thread] >= epoch;
  const auto it = foreign.find(block);
  return it != foreign.end() && (*it->second)[thread] >= epoch;
}

bool proxyKnows(const Lane& lane, uint64_t block, uint32_t thread, uint32_t epoch) {
  if (block != lane.owner->number)
    return true;  // of an earlier block: shared memory has none, global memory has barriers
  const std::vector<uint32_t>& fences = lane.owner->lanes[thread].race.proxyFences;
  const auto it = std::lower_bound(fences.begin(), fences.end(), epoch);
  return it != fences.end() && (static_cast<int>(thread) == lane.index || (*lane.race.known)[thread] >= *it);
}

void proxyFence(Lane& lane) { lane.race.proxyFences.push_back(lane.race.epoch++); }

void add(Clock& to, const Clock& from) {
  if (!from.times) return;
  if (!to.times)
    to.times = std::make_shared<Times>(*from.times);
  else
    merge(*to.times, *from.times);
}

void release(Lane& lane, Clock& clock) {
  Thread& it = lane.race;
  if (!clock.times)
    clock.times = std::make_shared<Times>(*it.known);
  else if (clock.joined != it.known)
    merge(*clock.times, *it.known);
  clock.joined = it.known;
  (*clock.times)[lane.index] = it.epoch++;
}

void acquireOwn(Lane& lane, const Clock& clock) { lane.race.known = clock.times; }

void acquire(Lane& lane, const Clock& clock) {
  if (!clock.times) return;
  // Lanes of a warp mostly know the same: the last result serves them all.
  static std::shared_ptr<const Times> from, with, result;
  if (from != lane.race.known || with != clock.times) {
    const auto joined = std::make_shared<Times>(*lane.race.known);
    merge(*joined, *clock.times);
    from = lane.race.known;
    with = clock.times;
    result = joined;
  }
  lane.race.known = result;
}

void syncWarp(Warp& warp, uint32_t lanes) {
  Clock clock;
  for (uint32_t left = lanes; left; left &= left - 1)
    release(warp.owner->lanes[warp.index * kWarp + __builtin_ctz(left)], clock);
  for (uint32_t left = lanes; left; left &= left - 1)
    acquireOwn(warp.owner->lanes[warp.index * kWarp + __builtin_ctz(left)], clock);
}

// A fence publishes, by the atomic update that follows it, all that the thread has done and knows; and after an update
// it makes known what others had published there.
void fence(Lane& lane) {
  Thread& it = lane.race;
  for (const void* at : it.seenAtomics) {
    for (const Published& other : published[at]) {
      if (other.block == lane.owner->number) continue;
      std::shared_ptr<const Times>& known = foreign[other.block];
      if (!known) {
        known = other.times;
      } else if (known != other.times) {
        const auto joined = std::make_shared<Times>(*known);
        merge(*joined, *other.times);
        known = joined;
      }
    }
  }
  it.seenAtomics.clear();
  it.fenced = snapshot(lane);
  ++it.epoch;
}

void publish(Lane& lane, const void* at) {
  if (lane.race.fenced) published[at].push_back({lane.owner->number, lane.race.fenced});
  std::vector<const void*>& seen = lane.race.seenAtomics;
  if (std::find(seen.begin(), seen.end(), at) == seen.end()) seen.push_back(at);
}

}  // namespace simt::emu::race
#endif
