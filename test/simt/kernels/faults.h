// Launchers of faults.cu: each kernel as it should be, and with the one fault it is named after.
#pragma once
#include "simt/simt.h"

enum class Fault {
  missingBarrier,
  misplacedBarrier,
  missingTrailingBarrier,
  missingSyncwarp,
  globalRead,
  globalWrite,
  staticShared,
  staticSharedRead,
  dynamicShared,
  pieceIntoNext,
  uninitialisedShared,
  shortWait,
  copyWithoutBarrier,
  copySourceOverwritten,
  misalignedPack,
  misalignedCast,
  divergentBarrier,
  exitBeforeBarrier,
  namedCount,
  namedMissing,
  divergentShuffle,
  partialWarp,
  outsideOutput,
  missingElement,
  betweenBlocks,
  missingFence,
  sharedTooSmall,
};

/** in and out: 256 floats. Right: out = what faults.cc expects; wrong: one of the emulator's reports. */
cudaError_t planted(Fault fault, bool wrong, const float* in, float* out, unsigned* counter);
