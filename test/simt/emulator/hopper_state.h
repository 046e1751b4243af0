// sm_90's state of a block: mbarriers, bulk copies in flight, warpgroups; and its place in the scheduler.
#pragma once
#include <deque>
#include <list>
#include <string>
#include <unordered_map>

#include "block.h"
#include "simt/hopper.h"

namespace simt::emu {

struct MbarrierState {
  const Mbarrier* at;
  int count, pending;  // arrivals
  int64_t tx = 0;      // bytes expected less bytes landed
  uint64_t phase = 0;
  bool fenced = false;    // the thread that made it has fenced it for the async proxy
  bool observed = false;  // someone has seen that the last phase is complete
  const Lane* maker;
  std::vector<Lane*> waiting;
  race::Clock gathering, completed;
};

struct BulkLoad {
  TensorMap map;
  int at[5];
  char* to;
  MbarrierState* barrier;
  uint64_t phase;
  race::Clock clock;
  Where where;
};

struct BulkStore {
  TensorMap map;
  int at[5];
  const char* from;
  std::vector<char> source;  // as it was at the issue
  Where where;
};

struct LaneStores {
  std::vector<BulkStore> stores;
  std::vector<size_t> groups;  // where they end
};

/** The D of products in flight: the lanes' registers hold NaN until the wait that returns it. */
struct Accumulator {
  float* lanes[128];
  int n, pending;
  std::vector<float> values;  // 64 x n
};

struct Product {
  WgmmaForm form;
  uint64_t a, b;
  std::vector<char> bytesA, bytesB;  // the operands at the issue: rows of 32 bytes
  std::shared_ptr<Accumulator> d;
  bool accumulate;
  Where where;
};

struct Warpgroup {
  int came = 0;  // of the 128 lanes, to the meeting under way
  void (*compute)(Block&, Warpgroup&) = nullptr;
  const char* what = nullptr;
  void* left[128];
  int index = 0;
  int registers = 0;  // a thread
  std::vector<Product> open;
  std::deque<std::vector<Product>> groups;
  std::vector<std::shared_ptr<Accumulator>> inFlight;
  bool fenced[128] = {};
};

struct Hopper {
  std::deque<MbarrierState> barriers;
  std::deque<BulkLoad> loads;
  std::unordered_map<int, LaneStores> stores;
  Warpgroup groups[kMaxWarps / 4];
  int freeRegisters = 0;
  std::vector<Lane*> wantRegisters;
  uint64_t polls = 0;  // of mbarriers since one last changed
};

void hopperBegin(Block& block);
/** Lets something asynchronous happen; false if nothing is under way. */
bool hopperProgress(Block& block);
/** With shuffled schedules, sometimes, as hopperProgress. */
void hopperPerhaps(Block& block);
void hopperExit(Lane& lane);
std::string hopperReport(const Block& block);

/** Brings the running lane to the meeting of its warpgroup's 128 lanes. */
void meetGroup(void (*compute)(Block&, Warpgroup&), void* brought, const char* what, Where where);

MbarrierState& barrierAt(const Mbarrier* at, Where where);
/** `bytes` of a copy issued in `phase` have landed. */
void landed(Block& block, MbarrierState& barrier, uint64_t phase, int64_t bytes, Where where);
void landLoad(Block& block, const BulkLoad& load);

}  // namespace simt::emu
