// How a product on tensor cores is cut into tiles and its sum into parts: decided by its shape alone.
#pragma once
#include <cstddef>
#include <cstdint>

namespace refl::cuda {

enum class MmaTile { large, middle, small };  // 128 x 128, 128 x 64, 64 x 64

struct MmaPlan {
  MmaTile tile;
  int splits;  // parts of the sum
};

/** The product's size, `count` times; where `always`, partial sums are written even if there is one part. */
struct MmaSize {
  int64_t count, rows, columns, depth;
  bool always = false;
};

/** Floats from one row of partial sums to the next. */
inline int64_t partialPitch(int64_t columns) { return (columns + 3) / 4 * 4; }

/** Bytes of partial sums. */
inline size_t partialBytes(const MmaSize& size, int splits) {
  if (splits == 1 && !size.always) return 0;
  return static_cast<size_t>(splits * size.count * size.rows * partialPitch(size.columns)) * sizeof(float);
}

/** The plan that a simple model of a chip with 108 processors finds cheapest. */
inline MmaPlan planMma(const MmaSize& size) {
  // A processor's clocks for a step of 32 of a tile: half of 1024 products a clock for the smallest, which reads most
  // from shared memory, three quarters for the largest.
  const struct {
    MmaTile tile;
    int rows, columns;
    double step;
  } tiles[] = {{MmaTile::large, 128, 128, 680}, {MmaTile::middle, 128, 64, 390}, {MmaTile::small, 64, 64, 250}};
  constexpr double kStart = 1500, kReduction = 5000, kBytesPerClock = 1000;
  constexpr int64_t kProcessors = 108, kLeastSteps = 8;

  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t steps = up(size.depth, 32);
  MmaPlan best = {MmaTile::small, 1};
  double least = -1;
  for (const auto& tile : tiles) {
    const int64_t blocks = size.count * up(size.rows, tile.rows) * up(size.columns, tile.columns);
    for (const int splits : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}) {
      if (splits > 1 && up(steps, splits) < kLeastSteps) break;
      const double waves = static_cast<double>(up(blocks * splits, kProcessors));
      double clocks = waves * (static_cast<double>(up(steps, splits)) * tile.step + kStart);
      const auto bytes = static_cast<double>(partialBytes(size, splits));
      if (bytes > 0) clocks += 2 * bytes / kBytesPerClock + kReduction;
      if (least >= 0 && clocks >= least) continue;
      least = clocks;
      best = {tile.tile, splits};
    }
  }
  return best;
}

}  // namespace refl::cuda
