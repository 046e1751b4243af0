// Bulk tensor copies. A load's destination is NaN from its issue on; it lands when no thread can go on (as late as may
// be) or, under shuffled schedules, at a random time before. A store's source must not have changed when its wait
// comes.
#include <cstring>

#include "hopper_state.h"

namespace simt::emu {
namespace {

uint32_t elementBytes(TensorType type) { return type == TensorType::u8 ? 1 : type == TensorType::f32 ? 4 : 2; }
uint32_t widthOf(Swizzle swizzle) { return swizzle == Swizzle::none ? 0 : 16u << static_cast<int>(swizzle); }

// Elements of the box along dimension i.
uint32_t count(const TensorView& view, int i) {
  return i == 0 ? view.box[0] : (view.box[i] + view.step[i] - 1) / view.step[i];
}

/** Calls fn(address in shared memory, address in the tensor or nullptr, bytes) for all of the box that starts at
 * `base`: for 16 bytes at once, and element by element where the tensor ends among them. */
template <class Fn>
void eachElement(const TensorMap& map, const int* at, const char* base, Fn&& fn) {
  const TensorView& view = map.view;
  const uint32_t es = map.elementBytes;
  uint32_t index[5] = {}, extent[5] = {1, 1, 1, 1, 1};
  for (int i = 0; i < view.rank; ++i) extent[i] = count(view, i);
  const uintptr_t mask = view.swizzle == Swizzle::none ? 0 : (widthOf(view.swizzle) >> 4) - 1;
  uintptr_t place = reinterpret_cast<uintptr_t>(base);
  for (index[4] = 0; index[4] < extent[4]; ++index[4])
    for (index[3] = 0; index[3] < extent[3]; ++index[3])
      for (index[2] = 0; index[2] < extent[2]; ++index[2])
        for (index[1] = 0; index[1] < extent[1]; ++index[1]) {
          bool inside = true;
          const char* row = static_cast<const char*>(view.at);
          for (int i = 1; i < view.rank; ++i) {
            const int64_t k = static_cast<int64_t>(at[i]) + static_cast<int64_t>(index[i]) * view.step[i];
            inside = inside && k >= 0 && k < static_cast<int64_t>(view.extent[i]);
            row += k * static_cast<int64_t>(view.stride[i - 1]);
          }
          const auto within = [&](int64_t k) { return inside && k >= 0 && k < static_cast<int64_t>(view.extent[0]); };
          const uint32_t unit = 16 / es;
          for (uint32_t i = 0; i < extent[0]; i += unit, place += 16) {
            const int64_t k = static_cast<int64_t>(at[0]) + i;
            char* to = reinterpret_cast<char*>(place ^ (place >> 7 & mask) << 4);
            if (within(k) && within(k + unit - 1)) {
              fn(to, row + k * es, 16u);
              continue;
            }
            for (uint32_t e = 0; e < unit; ++e) fn(to + e * es, within(k + e) ? row + (k + e) * es : nullptr, es);
          }
        }
}

void requireMap(const TensorMap* map, int rank, Where where) {
  if (map->view.rank != rank)
    fault("bad copy", where, "%d coordinates for a tensor map of rank %d", rank, map->view.rank);
}

cudaError_t refuse(const char* why, unsigned long long value) {
  setFault(std::string("tensor map refused: ") + why + " (" + std::to_string(value) + ")");
  return static_cast<cudaError_t>(1);
}

LaneStores& storesOf(const Lane& lane) { return lane.owner->hopper->stores[lane.index]; }

}  // namespace

void bulkLoad(void* to, const TensorMap* map, const int* at, int rank, Mbarrier* barrier, Where where) {
  Lane& lane = self();
  requireMap(map, rank, where);
  requireShared(to, map->boxBytes, 128, where);
  MbarrierState& state = barrierAt(barrier, where);
  if (!state.fenced) fault("missing fence", where, "the mbarrier was not fenced after its initialisation");
  BulkLoad load;
  load.map = *map;
  std::memcpy(load.at, at, sizeof(int) * rank);
  load.to = static_cast<char*>(to);
  load.barrier = &state;
  load.phase = state.phase;
  load.where = where;
  race::asyncWrite(lane, to, map->boxBytes, where);
  race::release(lane, load.clock);
  std::memset(to, 0xff, map->boxBytes);
  lane.owner->hopper->loads.push_back(load);
  hopperPerhaps(*lane.owner);
}

void landLoad(Block& block, const BulkLoad& load) {
  eachElement(load.map, load.at, load.to, [](char* to, const char* from, uint32_t bytes) {
    if (from)
      std::memcpy(to, from, bytes);
    else
      std::memset(to, 0, bytes);
  });
  race::add(load.barrier->gathering, load.clock);
  landed(block, *load.barrier, load.phase, load.map.boxBytes, load.where);
}

void bulkStore(const TensorMap* map, const int* at, int rank, const void* from, Where where) {
  requireMap(map, rank, where);
  requireShared(from, map->boxBytes, 128, where);
  for (int i = 0; i < rank; ++i)
    if (at[i] < 0) fault("bad copy", where, "a store to coordinate %d in dimension %d", at[i], i);
  race::asyncRead(self(), from, map->boxBytes, where);
  BulkStore store;
  store.map = *map;
  std::memcpy(store.at, at, sizeof(int) * rank);
  store.from = static_cast<const char*>(from);
  store.source.assign(store.from, store.from + map->boxBytes);
  store.where = where;
  storesOf(self()).stores.push_back(std::move(store));
}

void bulkWait(int pending, Where where) {
  LaneStores& it = storesOf(self());
  const int done = static_cast<int>(it.groups.size()) - pending;
  if (done <= 0) return;
  const size_t stores = it.groups[done - 1];
  for (size_t i = 0; i < stores; ++i) {
    const BulkStore& store = it.stores[i];
    race::asyncRead(self(), store.from, store.source.size(), where);
    if (std::memcmp(store.from, store.source.data(), store.source.size()))
      fault("overwritten while read", store.where, "the source of a bulk store changed before the wait that covers it");
    eachElement(store.map, store.at, store.from, [&](const char* from, const char* to, uint32_t bytes) {
      if (!to) return;
      race::write(self(), to, bytes, store.where);
      std::memcpy(const_cast<char*>(to), from, bytes);
    });
  }
  it.stores.erase(it.stores.begin(), it.stores.begin() + static_cast<long>(stores));
  it.groups.erase(it.groups.begin(), it.groups.begin() + done);
  for (size_t& end : it.groups) end -= stores;
}

}  // namespace simt::emu

namespace simt {

using namespace emu;

void bulkCommit() {
  LaneStores& it = storesOf(self());
  it.groups.push_back(it.stores.size());
}

void fenceProxyAsync() {
  race::proxyFence(self());
  mbarrierInitFence();
}

// The driver's refusals, and one of our own: a swizzled box is as wide as its swizzle.
cudaError_t encodeTensorMap(TensorMap* map, const TensorView& view) {
  const uint32_t es = elementBytes(view.type);
  if (view.rank < 1 || view.rank > 5) return refuse("rank must be 1 to 5", view.rank);
  if (reinterpret_cast<uintptr_t>(view.at) % (view.swizzle == Swizzle::none ? 16 : 128))
    return refuse("the tensor must start at a multiple of 16 bytes, swizzled of 128",
                  reinterpret_cast<uintptr_t>(view.at));
  uint64_t bytes = es;
  for (int i = 0; i < view.rank; ++i) {
    if (view.extent[i] < 1 || view.extent[i] > 1ull << 32) return refuse("extents must be 1 to 2^32", view.extent[i]);
    if (view.box[i] < 1 || view.box[i] > 256) return refuse("the box's extents must be 1 to 256", view.box[i]);
    if (view.step[i] < 1 || view.step[i] > 8) return refuse("steps must be 1 to 8", view.step[i]);
    if (i > 0 && (view.stride[i - 1] % 16 || view.stride[i - 1] >= 1ull << 40 || !view.stride[i - 1]))
      return refuse("strides must be multiples of 16 below 2^40", view.stride[i - 1]);
    bytes *= count(view, i);
  }
  const uint32_t width = view.box[0] * es;
  if (width % 16) return refuse("the box must be a multiple of 16 bytes wide", width);
  if (view.swizzle != Swizzle::none && width != widthOf(view.swizzle))
    return refuse("a swizzled box must be as wide as its swizzle", width);
  map->view = view;
  map->elementBytes = es;
  map->boxBytes = static_cast<uint32_t>(bytes);
  return cudaSuccess;
}

}  // namespace simt
