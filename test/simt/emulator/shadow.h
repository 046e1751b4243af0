// Shared between the race detector's clocks and its shadow of memory.
#pragma once
#include <unordered_map>

#include "block.h"

namespace simt::emu::race {

void clocksBegin(Block& block);
void forgetPublished();
/** Whether what thread `thread` of block `block` did in `epoch` is ordered before what `lane` does now. */
bool knows(const Lane& lane, uint64_t block, uint32_t thread, uint32_t epoch);
/** Whether that thread has fenced it for the async proxy, and the fence is ordered before. */
bool proxyKnows(const Lane& lane, uint64_t block, uint32_t thread, uint32_t epoch);
/** An atomic update of `at`. */
void publish(Lane& lane, const void* at);

}  // namespace simt::emu::race
