// What a warp does together: shuffles, votes, reductions, __syncwarp.
#include "block.h"
#include "simt/warp.h"

namespace simt::emu {
namespace {

void complete(Warp& warp, Meeting& meeting) {
  const uint32_t came = meeting.came;
  meeting.compute(warp, meeting);
  meeting.mask = 0;
  for (uint32_t left = came; left; left &= left - 1) {
    Lane& lane = warp.owner->lanes[warp.index * kWarp + __builtin_ctz(left)];
    if (lane.waitsFor) warp.owner->makeReady(lane);
  }
}

struct Shuffled {
  uint64_t value;
  int operand, width;
  Shuffle kind;
};

int sourceOf(const Shuffled& it, int lane) {
  const int segment = lane & ~(it.width - 1), last = segment + it.width - 1;
  switch (it.kind) {
    case Shuffle::index:
      return segment + (it.operand & (it.width - 1));
    case Shuffle::up:
      return lane - it.operand >= segment ? lane - it.operand : lane;
    case Shuffle::down:
      return lane + it.operand <= last ? lane + it.operand : lane;
    default: {
      const int source = lane ^ it.operand;
      return source <= last ? source : lane;
    }
  }
}

void shuffleAll(Warp&, Meeting& meeting) {
  uint64_t old[kWarp];
  for (uint32_t left = meeting.came; left; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    old[lane] = static_cast<Shuffled*>(meeting.left[lane])->value;
  }
  for (uint32_t left = meeting.came; left; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    Shuffled& it = *static_cast<Shuffled*>(meeting.left[lane]);
    const int source = sourceOf(it, lane) % kWarp;
    // A lane that does not take part has no defined value.
    it.value = meeting.came >> source & 1 ? old[source] : ~uint64_t{0};
  }
}

struct Voted {
  uint32_t value;
};

void voteAll(Warp&, Meeting& meeting) {
  uint32_t ballot = 0;
  for (uint32_t left = meeting.came; left; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    if (static_cast<Voted*>(meeting.left[lane])->value) ballot |= 1u << lane;
  }
  for (uint32_t left = meeting.came; left; left &= left - 1)
    static_cast<Voted*>(meeting.left[__builtin_ctz(left)])->value = ballot;
}

template <class T>
T folded(Fold fold, T a, T b) {
  switch (fold) {
    case Fold::min:
      return b < a ? b : a;
    case Fold::max:
      return a < b ? b : a;
    default:
      return a + b;
  }
}

// operand: the fold, and 16 where values are signed.
void reduceAll(Warp&, Meeting& meeting) {
  const Fold fold = static_cast<Fold>(meeting.operand & 15);
  bool first = true;
  uint32_t total = 0;
  for (uint32_t left = meeting.came; left; left &= left - 1) {
    const uint32_t value = static_cast<Voted*>(meeting.left[__builtin_ctz(left)])->value;
    if (first)
      total = value;
    else if (fold == Fold::bitAnd)
      total &= value;
    else if (fold == Fold::bitOr)
      total |= value;
    else if (fold == Fold::bitXor)
      total ^= value;
    else if (meeting.operand & 16)
      total = static_cast<uint32_t>(folded(fold, static_cast<int64_t>(static_cast<int32_t>(total)),
                                           static_cast<int64_t>(static_cast<int32_t>(value))));
    else
      total = folded(fold, total, value);
    first = false;
  }
  for (uint32_t left = meeting.came; left; left &= left - 1)
    static_cast<Voted*>(meeting.left[__builtin_ctz(left)])->value = total;
}

template <class T>
struct Row {
  T* v;
  int count, width;
};

// The sums of a loop of __shfl_xor_sync over width / 2, ..., 1: of all lanes in step, in the same order of additions.
template <class T>
void butterflyAll(Warp&, Meeting& meeting) {
  const Row<T>& first = *static_cast<Row<T>*>(meeting.left[0]);
  for (int i = 0; i < first.count; ++i) {
    T v[kWarp], other[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) v[lane] = static_cast<Row<T>*>(meeting.left[lane])->v[i];
    for (int step = first.width / 2; step > 0; step /= 2) {
      for (int lane = 0; lane < kWarp; ++lane) other[lane] = v[lane ^ step];
      for (int lane = 0; lane < kWarp; ++lane) {
        if (meeting.operand == static_cast<int>(Fold::add))
          v[lane] += other[lane];
        else
          v[lane] = max(v[lane], other[lane]);
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) static_cast<Row<T>*>(meeting.left[lane])->v[i] = v[lane];
  }
}

void syncAll(Warp& warp, Meeting& meeting) { race::syncWarp(warp, meeting.came); }

}  // namespace

namespace {

void join(bool aligned, uint32_t mask, void (*compute)(Warp&, Meeting&), int operand, void* brought, const char* what,
          Where where) {
  Lane& lane = self();
  Warp& warp = *lane.warp;
  if (!(mask >> lane.lane & 1)) fault("bad mask", where, "%s with mask %08x, which leaves out the caller", what, mask);
  mask &= warp.members;
  Meeting* meeting = nullptr;
  for (Meeting& other : warp.meetings)
    if (other.mask == mask) meeting = &other;
  if (!meeting) {
    for (Meeting& other : warp.meetings)
      if (!other.mask) meeting = &other;
    if (!meeting) fault("divergent warp", where, "%s with mask %08x, a fifth meeting of one warp at once", what, mask);
    meeting->mask = mask;
    meeting->came = 0;
    meeting->aligned = aligned;
    meeting->compute = compute;
    meeting->operand = operand;
    meeting->what = what;
  } else if (meeting->compute != compute || meeting->operand != operand) {
    fault("divergent warp", where, "%s, while other lanes of the warp are at %s (or at one with other operands)", what,
          meeting->what);
  }
  meeting->left[lane.lane] = brought;
  meeting->came |= 1u << lane.lane;
  if (meeting->came == (mask & ~warp.exited))
    complete(warp, *meeting);
  else
    warp.owner->park(lane, what, where);
}

}  // namespace

void meet(uint32_t mask, void (*compute)(Warp&, Meeting&), int operand, void* brought, const char* what, Where where) {
  join(false, mask, compute, operand, brought, what, where);
}

void meetAligned(void (*compute)(Warp&, Meeting&), int operand, void* brought, const char* what, Where where) {
  const Warp& warp = *self().warp;
  if (warp.exited || warp.members != 0xffffffffu)
    fault("divergent warp", where, "%s needs all 32 lanes of the warp; lanes %08x are there", what,
          warp.members & ~warp.exited);
  join(true, 0xffffffffu, compute, operand, brought, what, where);
}

void meetingsAfterExit(Warp& warp) {
  for (Meeting& meeting : warp.meetings) {
    if (!meeting.mask) continue;
    if (meeting.aligned)
      fault("divergent warp", self().where, "a thread exits while lanes %08x of its warp wait for it at %s",
            meeting.came, meeting.what);
    if (meeting.came == (meeting.mask & ~warp.exited)) complete(warp, meeting);
  }
}

uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width, Where where) {
  if (width < 1 || width > kWarp || (width & (width - 1)))
    fault("bad width", where, "a shuffle over %d lanes: must be a power of two up to 32", width);
  Shuffled it = {value, operand, width, kind};
  meet(mask, shuffleAll, static_cast<int>(kind) * 64 + width, &it, "a shuffle", where);
  return it.value;
}

unsigned reduce(Fold fold, unsigned mask, unsigned value, bool isSigned, Where where) {
  Voted it = {value};
  meet(mask, reduceAll, static_cast<int>(fold) + (isSigned ? 16 : 0), &it, "a reduction", where);
  return it.value;
}

template <class T>
void butterfly(Fold fold, T* v, int count, int width, Where where) {
  Row<T> row = {v, count, width};
  meetAligned(butterflyAll<T>, static_cast<int>(fold), &row, "a warp's reduction", where);
}
template void butterfly<float>(Fold, float*, int, int, Where);
template void butterfly<double>(Fold, double*, int, int, Where);
template void butterfly<int>(Fold, int*, int, int, Where);

}  // namespace simt::emu

unsigned __ballot_sync(unsigned mask, int predicate, simt::emu::Where where) {
  simt::emu::Voted it = {predicate != 0};
  simt::emu::meet(mask, simt::emu::voteAll, 0, &it, "a vote", where);
  return it.value;
}

void __syncwarp(unsigned mask, simt::emu::Where where) {
  simt::emu::meet(mask, simt::emu::syncAll, 0, nullptr, "__syncwarp", where);
}
