// wgmma and what else a warpgroup does together. Operands are read through their descriptors, byte by byte as the
// hardware addresses them: at the issue and again at the wait that covers the product, when they must still be the
// same. D's registers are NaN in between and must be found so.
#pragma GCC optimize("O3,fp-contract=fast")
#include <cstring>

#include "hopper_state.h"

namespace simt::emu {
namespace {

// Operands as `rows` rows of 32 bytes: K of them for row r of A, or column r of B.
constexpr int kRowBytes = 32;

struct Issue {
  WgmmaForm form;
  float* d;
  uint64_t a, b;
  const uint32_t* fragment;
  bool accumulate;
  Where where;
};

struct Descriptor {
  uint32_t start, leading, stride, width, mask;

  Descriptor(uint64_t bits, Where where) {
    constexpr uint32_t kWidths[4] = {0, 128, 64, 32};
    start = static_cast<uint32_t>(bits & 0x3fff) << 4;
    leading = static_cast<uint32_t>(bits >> 16 & 0x3fff) << 4;
    stride = static_cast<uint32_t>(bits >> 32 & 0x3fff) << 4;
    width = kWidths[bits >> 62];
    mask = width ? width / 16 - 1 : 0;
    constexpr uint64_t kUsed = 0x3fffull | 0x3fffull << 16 | 0x3fffull << 32 | 3ull << 62;
    if (bits & ~kUsed)
      fault("bad descriptor", where, "bits %016llx: a base offset or reserved bits are set",
            static_cast<unsigned long long>(bits & ~kUsed));
  }
  const char* chunk(const Block& block, uint32_t address, Where where) const {
    address ^= (address >> 7 & mask) << 4;
    const char* at = block.shared + address;
    requireShared(at, 16, 16, where);
    return at;
  }
};

// Calls fn(address of 16 bytes, row, byte of the row) for K-major, and for MN-major fn(address, first of 8 rows, k).
template <class Fn>
void eachChunk(const Block& block, const Descriptor& it, int rows, bool transposed, Where where, Fn&& fn) {
  if (!transposed) {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < 2; ++c) {
        const uint32_t address = it.width ? it.start + r / 8 * it.stride + r % 8 * it.width + 16 * c
                                          : it.start + r / 8 * it.stride + r % 8 * 16 + c * it.leading;
        fn(it.chunk(block, address, where), r, 16 * c);
      }
    return;
  }
  for (int m = 0; m < rows; m += 8)
    for (int k = 0; k < 16; ++k) {
      const int across = static_cast<int>(it.width / 2);
      const uint32_t address =
          it.width ? it.start + m / across * it.leading + m % across * 2 + k / 8 * it.stride + k % 8 * it.width
                   : it.start + m / 8 * it.stride + k / 8 * it.leading + k % 8 * 16;
      fn(it.chunk(block, address, where), m, k);
    }
}

std::vector<char> gather(const Block& block, uint64_t descriptor, int rows, bool transposed, Where where) {
  std::vector<char> bytes(rows * kRowBytes);
  eachChunk(block, Descriptor(descriptor, where), rows, transposed, where, [&](const char* at, int row, int k) {
    if (!transposed) {
      std::memcpy(&bytes[row * kRowBytes + k], at, 16);
    } else {
      for (int i = 0; i < 8; ++i) std::memcpy(&bytes[(row + i) * kRowBytes + 2 * k], at + 2 * i, 2);
    }
  });
  return bytes;
}

// Each warp reads its rows of A and all of B; lane 0 stands for it.
void noteReads([[maybe_unused]] Block& block, [[maybe_unused]] const Warpgroup& group,
               [[maybe_unused]] const Product& it, [[maybe_unused]] Where where) {
#ifdef SIMT_RACE
  Lane* first = &block.lanes[group.index * 128];
  if (!it.form.fragments)
    eachChunk(block, Descriptor(it.a, where), 64, it.form.transA, where,
              [&](const char* at, int row, int) { race::asyncRead(first[row / 16 * kWarp], at, 16, where); });
  eachChunk(block, Descriptor(it.b, where), it.form.n, it.form.transB, where, [&](const char* at, int, int) {
    for (int w = 0; w < 4; ++w) race::asyncRead(first[w * kWarp], at, 16, where);
  });
#endif
}

float element(Element type, const char* row, int k) {
  if (type == Element::tf32) {
    uint32_t bits;
    std::memcpy(&bits, row + 4 * k, 4);
    return __uint_as_float(bits & ~0x1fffu);
  }
  uint16_t bits;
  std::memcpy(&bits, row + 2 * k, 2);
  return type == Element::bf16 ? toFloat(bf16{bits}) : toFloat(f16{bits});
}

int rowOf(int thread, int i) { return 16 * (thread / kWarp) + thread % kWarp / 4 + 8 * (i / 2 % 2); }
int columnOf(int thread, int i) { return 8 * (i / 4) + 2 * (thread % 4) + i % 2; }

void issueAll(Block& block, Warpgroup& group) {
  const Issue& first = *static_cast<Issue*>(group.left[0]);
  const int n = first.form.n;
  Product product = {first.form, first.a, first.b, {}, {}, nullptr, first.accumulate, first.where};
  for (int t = 0; t < 128; ++t) {
    const Issue& it = *static_cast<Issue*>(group.left[t]);
    if (it.a != first.a || it.b != first.b || it.accumulate != first.accumulate || it.form.n != n ||
        it.form.type != first.form.type || it.form.fragments != first.form.fragments ||
        it.form.transA != first.form.transA || it.form.transB != first.form.transB)
      fault("divergent warpgroup", it.where, "thread %d of the warpgroup issues another wgmma than thread 0", t);
  }
  for (const std::shared_ptr<Accumulator>& other : group.inFlight)
    if (other->lanes[0] == first.d && other->n == n) product.d = other;
  if (!product.d || first.form.fragments)
    for (int t = 0; t < 128; ++t)
      if (!group.fenced[t])
        fault("missing fence", first.where, "thread %d has not called wgmmaFence since its registers were last its own",
              t);
  if (!product.d) {
    product.d = std::make_shared<Accumulator>();
    product.d->n = n;
    product.d->pending = 0;
    product.d->values.resize(64 * n);
    for (int t = 0; t < 128; ++t) {
      float* d = static_cast<Issue*>(group.left[t])->d;
      product.d->lanes[t] = d;
      for (int i = 0; i < n / 2; ++i) product.d->values[rowOf(t, i) * n + columnOf(t, i)] = d[i];
      std::memset(d, 0xff, n / 2 * sizeof(float));
    }
    group.inFlight.push_back(product.d);
  }
  ++product.d->pending;
  if (first.form.fragments) {
    product.bytesA.resize(64 * kRowBytes);
    for (int t = 0; t < 128; ++t) {
      const Issue& it = *static_cast<Issue*>(group.left[t]);
      for (int i = 0; i < 4; ++i) {
        // Four bytes of a row: two 16-bit elements or one of tf32, in the order of mma's A.
        const int row = 16 * (t / kWarp) + t % kWarp / 4 + 8 * (i % 2);
        std::memcpy(&product.bytesA[row * kRowBytes + 4 * (t % 4) + 16 * (i / 2)], &it.fragment[i], 4);
      }
    }
  } else {
    product.bytesA = gather(block, first.a, 64, first.form.transA, first.where);
  }
  product.bytesB = gather(block, first.b, n, first.form.transB, first.where);
  noteReads(block, group, product, first.where);
  group.open.push_back(std::move(product));
}

void multiply(Block& block, const Warpgroup& group, const Product& it) {
  if ((!it.form.fragments && gather(block, it.a, 64, it.form.transA, it.where) != it.bytesA) ||
      gather(block, it.b, it.form.n, it.form.transB, it.where) != it.bytesB)
    fault("overwritten while read", it.where,
          "operands of a wgmma changed between its issue and the wait that covers it");
  noteReads(block, group, it, it.where);
  const int depth = it.form.type == Element::tf32 ? 8 : 16, n = it.form.n;
  float b[16][256];
  for (int c = 0; c < n; ++c)
    for (int k = 0; k < depth; ++k) b[k][c] = element(it.form.type, &it.bytesB[c * kRowBytes], k);
  std::vector<float>& d = it.d->values;
  if (!it.accumulate) std::fill(d.begin(), d.end(), 0.0f);
  for (int row = 0; row < 64; ++row) {
    float* sum = &d[row * n];
    for (int k = 0; k < depth; ++k) {
      const float a = element(it.form.type, &it.bytesA[row * kRowBytes], k);
      for (int c = 0; c < n; ++c) sum[c] += a * b[k][c];
    }
  }
  --it.d->pending;
}

void commitAll(Block&, Warpgroup& group) {
  group.groups.push_back(std::move(group.open));
  group.open.clear();
}

struct Wait {
  int pending;
  Where where;
};

void waitAll(Block& block, Warpgroup& group) {
  const Wait& wait = *static_cast<Wait*>(group.left[0]);
  while (static_cast<int>(group.groups.size()) > wait.pending) {
    for (const Product& product : group.groups.front()) multiply(block, group, product);
    group.groups.pop_front();
  }
  for (size_t i = 0; i < group.inFlight.size();) {
    const Accumulator& d = *group.inFlight[i];
    if (d.pending) {
      ++i;
      continue;
    }
    for (int t = 0; t < 128; ++t)
      for (int r = 0; r < d.n / 2; ++r) {
        if (__float_as_uint(d.lanes[t][r]) != 0xffffffffu)
          fault("accumulator touched", wait.where, "register %d of thread %d was written between a wgmma and its wait",
                r, t);
        d.lanes[t][r] = d.values[rowOf(t, r) * d.n + columnOf(t, r)];
      }
    group.inFlight.erase(group.inFlight.begin() + static_cast<long>(i));
    std::memset(group.fenced, 0, sizeof group.fenced);
  }
  // A warp's wait is one instruction of all its lanes: any of them may then tell others that the operands are free.
  for (int w = 0; w < 4; ++w) race::syncWarp(block.warp[group.index * 4 + w], 0xffffffffu);
}

struct Registers {
  int count;
  bool raise;
  Where where;
};

void setAll(Block& block, Warpgroup& group) {
  Hopper& it = *block.hopper;
  const Registers& wanted = *static_cast<Registers*>(group.left[0]);
  const int more = (wanted.count - group.registers) * 128;
  if (wanted.raise ? more < 0 : more > 0)
    fault("bad setmaxnreg", wanted.where, "%s from %d registers to %d", wanted.raise ? "raise" : "lower",
          group.registers, wanted.count);
  while (wanted.raise && it.freeRegisters < more) {
    it.wantRegisters.push_back(&self());
    block.park(self(), "registers of other warpgroups", wanted.where);
  }
  it.freeRegisters -= more;
  group.registers = wanted.count;
  for (Lane* lane : it.wantRegisters) block.makeReady(*lane);
  it.wantRegisters.clear();
}

void electAll(Warp& warp, Meeting& meeting) {
  // Which lane it is, is not to be relied on.
  const int chosen = warp.owner->random ? static_cast<int>(warp.owner->launched->seed % kWarp) : 0;
  for (int lane = 0; lane < kWarp; ++lane) *static_cast<bool*>(meeting.left[lane]) = lane == chosen;
}

struct Rows {
  char* row;
  const uint32_t* r;
  Where where;
};

void storeAll(Warp& warp, Meeting& meeting) {
  const bool trans = meeting.operand < 0;
  const int count = trans ? -meeting.operand : meeting.operand;
  for (int j = 0; j < count; ++j)
    for (int lane = 0; lane < kWarp; ++lane)
      for (int half = 0; half < 2; ++half) {
        const Rows& from = *static_cast<Rows*>(meeting.left[lane]);
        const int a = lane / 4, b = 2 * (lane % 4) + half;
        char* to = static_cast<Rows*>(meeting.left[8 * j + (trans ? b : a)])->row + 2 * (trans ? a : b);
        race::write(warp.owner->lanes[warp.index * kWarp + lane], to, 2, from.where);
        const uint16_t bits = static_cast<uint16_t>(from.r[j] >> 16 * half);
        std::memcpy(to, &bits, 2);
      }
}

}  // namespace

void meetGroup(void (*compute)(Block&, Warpgroup&), void* brought, const char* what, Where where) {
  Lane& lane = self();
  Block& block = *lane.owner;
  if (lane.warp->index / 4 * 4 + 4 > block.warps)
    fault("divergent warpgroup", where, "%s by a warp of no whole warpgroup", what);
  Warpgroup& group = block.hopper->groups[lane.warp->index / 4];
  if (group.came && group.compute != compute)
    fault("divergent warpgroup", where, "%s, while other threads of the warpgroup are at %s", what, group.what);
  group.compute = compute;
  group.what = what;
  group.left[lane.index % 128] = brought;
  if (++group.came < 128) return block.park(lane, what, where);
  compute(block, group);
  group.came = 0;
  for (int t = 0; t < 128; ++t) {
    Lane& other = block.lanes[group.index * 128 + t];
    if (&other != &lane) block.makeReady(other);
  }
}

void groupMultiply(const WgmmaForm& form, float* d, uint64_t a, const uint32_t* fragment, uint64_t b, bool accumulate,
                   Where where) {
  Issue issue = {form, d, a, b, fragment, accumulate, where};
  meetGroup(issueAll, &issue, "wgmma", where);
}

void groupWait(int pending, Where where) {
  Wait wait = {pending, where};
  meetGroup(waitAll, &wait, "wgmmaWait", where);
}

void setRegisters(int count, bool raise, Where where) {
  Registers wanted = {count, raise, where};
  meetGroup(setAll, &wanted, "setmaxnreg", where);
}

void storeMatrix(void* row, const uint32_t* r, int count, bool trans, Where where) {
  requireShared(row, 16, 16, where);
  Rows rows = {static_cast<char*>(row), r, where};
  meetAligned(storeAll, trans ? -count : count, &rows, "stmatrix", where);
}

}  // namespace simt::emu

namespace simt {

using namespace emu;

void wgmmaFence(Where) {
  const Lane& lane = self();
  lane.owner->hopper->groups[lane.warp->index / 4].fenced[lane.index % 128] = true;
}

void wgmmaCommit(Where where) { meetGroup(commitAll, nullptr, "wgmmaCommit", where); }

bool electOne(Where where) {
  bool chosen = false;
  meetAligned(electAll, 0, &chosen, "elect", where);
  return chosen;
}

}  // namespace simt
