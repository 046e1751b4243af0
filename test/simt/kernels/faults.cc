// Each planted fault as a case of its own, and all the same kernels without faults as one that must pass.
#include "faults.h"

#include "harness.h"

using namespace harness;

namespace {

constexpr size_t kAll = 256;

struct Planted {
  const char* name;
  Fault fault;
  double (*expected)(const std::vector<double>& in, size_t i);
};

double same(const std::vector<double>& in, size_t i) { return in[i]; }

const Planted all[] = {
    {"missing barrier", Fault::missingBarrier, [](auto& in, size_t i) { return in[i ^ 1]; }},
    {"misplaced barrier", Fault::misplacedBarrier,
     [](auto& in, size_t i) { return in[i / 128 * 128 + 127 - i % 128]; }},
    {"missing trailing barrier", Fault::missingTrailingBarrier,
     [](auto& in, size_t i) { return 4 * in[i / 128 * 128 + (i + 32) % 128] + 6; }},
    {"missing __syncwarp", Fault::missingSyncwarp, [](auto& in, size_t i) { return in[i ^ 1]; }},
    {"global read out of bounds", Fault::globalRead, same},
    {"global write out of bounds", Fault::globalWrite, same},
    {"static shared memory out of bounds", Fault::staticShared, same},
    {"static shared memory read out of bounds", Fault::staticSharedRead, same},
    {"dynamic shared memory out of bounds", Fault::dynamicShared, same},
    {"from one piece into the next", Fault::pieceIntoNext, same},
    {"uninitialised shared memory", Fault::uninitialisedShared, same},
    {"cp.async waited for too little", Fault::shortWait, same},
    {"cp.async without a barrier", Fault::copyWithoutBarrier, [](auto& in, size_t i) { return in[i ^ 1]; }},
    {"cp.async over what is still read", Fault::copySourceOverwritten,
     [](auto& in, size_t i) { return 2 * in[i ^ 33]; }},
    {"misaligned pack", Fault::misalignedPack, same},
    {"misaligned cast", Fault::misalignedCast, same},
    {"divergent barrier", Fault::divergentBarrier, same},
    {"exit before a barrier", Fault::exitBeforeBarrier, same},
    {"named barrier, two counts", Fault::namedCount, same},
    {"named barrier, one missing", Fault::namedMissing, same},
    {"divergent shuffle", Fault::divergentShuffle, same},
    {"partial warp", Fault::partialWarp, same},
    {"write outside the output", Fault::outsideOutput, same},
    {"missing output element", Fault::missingElement, same},
    {"race between blocks", Fault::betweenBlocks, same},
    {"missing fence between blocks", Fault::missingFence, same},
    {"shared memory too small", Fault::sharedTooSmall, same},
};

void launchIt(const Planted& it, bool wrong) {
  const Input<float> in(uniform(kAll, -1, 1, 11));
  const Input<unsigned> counter({0});
  Output<float> out(kAll);
  check(planted(it.fault, wrong, in.data(), out.data(), counter.data()));
  std::vector<double> expected(kAll);
  for (size_t i = 0; i < kAll; ++i) expected[i] = it.expected(in.values(), i);
  expectClose(out.values(), expected, 1e-6, "out");
}

const bool added = [] {
  addCase("without faults", [] {
    for (const Planted& it : all) launchIt(it, false);
  });
  for (const Planted& it : all) addCase(it.name, [&it] { launchIt(it, true); });
  return true;
}();

}  // namespace
