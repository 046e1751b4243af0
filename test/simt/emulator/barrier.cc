// Barriers of a block: __syncthreads and the named ones. Threads are counted one by one and must come in whole warps; a
// thread that has exited counts for nothing, so a barrier that waits for it is reported as a deadlock.
#include "block.h"
#include "simt/warp.h"

namespace simt::emu {
namespace {

void complete(Block& block, Barrier& barrier, const char* what, Where where) {
  for (int w = 0; w < block.warps; ++w) {
    if (barrier.arrived[w] && barrier.arrived[w] != block.warp[w].members)
      fault("divergent barrier", where, "%s is complete, but lanes %08x of warp %d did not come to it", what,
            block.warp[w].members & ~barrier.arrived[w], w);
  }
  barrier.result = barrier.predicates;
  for (int w = 0; w < block.warps; ++w) {
    for (uint32_t left = barrier.waiting[w]; left; left &= left - 1) {
      Lane& lane = block.lanes[w * kWarp + __builtin_ctz(left)];
      race::acquireOwn(lane, barrier.clock);
      if (lane.waitsFor) block.makeReady(lane);
    }
    barrier.arrived[w] = barrier.waiting[w] = 0;
  }
  barrier.came = barrier.expected = barrier.predicates = 0;
  barrier.clock = race::Clock();
  if (block.random) block.drawPriorities();
}

int come(int id, int threads, int predicate, bool waits, const char* what, Where where) {
  Lane& lane = self();
  Block& block = *lane.owner;
  Barrier& barrier = block.barriers[id];
  if (barrier.came && barrier.expected != threads)
    fault("barrier count mismatch", where, "barrier %d with %d threads; others came to it with %d", id, threads,
          barrier.expected);
  uint32_t& arrived = barrier.arrived[lane.warp->index];
  const uint32_t bit = 1u << lane.lane;
  if (arrived & bit) fault("barrier misuse", where, "barrier %d again by a thread it still waits with", id);
  arrived |= bit;
  if (waits) barrier.waiting[lane.warp->index] |= bit;
  barrier.expected = threads;
  barrier.predicates += predicate != 0;
  race::release(lane, barrier.clock);
  if (++barrier.came == threads)
    complete(block, barrier, what, where);
  else if (waits)
    block.park(lane, what, where);
  return barrier.result;
}

void named(int id, int threads, bool waits, const char* what, Where where) {
  if (id < 1 || id > 15) fault("bad barrier", where, "barrier %d: named barriers are 1 to 15", id);
  if (threads < kWarp || threads % kWarp || threads > self().owner->warps * kWarp)
    fault("bad barrier", where, "barrier %d with %d threads: must be a multiple of 32 up to the block's", id, threads);
  come(id, threads, 0, waits, what, where);
}

int whole(int predicate, Where where) {
  return come(0, self().owner->threads, predicate, true, "__syncthreads", where);
}

}  // namespace
}  // namespace simt::emu

void __syncthreads(simt::emu::Where where) { simt::emu::whole(0, where); }
int __syncthreads_or(int predicate, simt::emu::Where where) { return simt::emu::whole(predicate, where) != 0; }
int __syncthreads_count(int predicate, simt::emu::Where where) { return simt::emu::whole(predicate, where); }
void __threadfence_block() {}
void __threadfence() { simt::emu::race::fence(simt::emu::self()); }

void simt::barSync(int id, int threads, emu::Where where) { emu::named(id, threads, true, "bar.sync", where); }
void simt::barArrive(int id, int threads, emu::Where where) { emu::named(id, threads, false, "bar.arrive", where); }
