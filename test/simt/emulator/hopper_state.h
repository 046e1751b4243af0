// sm_90's state of a block and its place in the scheduler.
#pragma once
#include <string>

#include "block.h"

namespace simt::emu {

struct Hopper {};

inline void hopperBegin(Block&) {}
/** Lets something asynchronous happen; false if nothing is under way. */
inline bool hopperProgress(Block&) { return false; }
inline void hopperExit(Lane&) {}
inline std::string hopperReport(const Block&) { return ""; }

}  // namespace simt::emu
