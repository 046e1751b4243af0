// ldmatrix and mma.sync: decoded from the registers and addresses of 32 lanes by the maps in simt/mma.h.
// Most of the time of an emulated product is spent in these loops.
#pragma GCC optimize("O3,fp-contract=fast")
#include <cstring>

#include "block.h"
#include "simt/mma.h"

namespace simt::emu {
namespace {

struct Rows {
  uint32_t* r;
  const char* row;
  Where where;
};

// operand: the number of matrices, negative where transposed.
void loadAll(Warp& warp, Meeting& meeting) {
  const bool trans = meeting.operand < 0;
  const int count = trans ? -meeting.operand : meeting.operand;
  for (int j = 0; j < count; ++j) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) {
      const Rows& from = *static_cast<Rows*>(meeting.left[8 * j + row]);
      // Of the lanes that get elements of the row, one stands for all.
      race::read(warp.owner->lanes[warp.index * kWarp + (trans ? 4 * j + row / 2 : 4 * row + j)], from.row, 16,
                 from.where);
      std::memcpy(matrix[row], from.row, 16);
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      const int a = lane / 4, b = 2 * (lane % 4);
      const uint32_t low = trans ? matrix[b][a] : matrix[a][b], high = trans ? matrix[b + 1][a] : matrix[a][b + 1];
      static_cast<Rows*>(meeting.left[lane])->r[j] = low | high << 16;
    }
  }
}

struct Fragments {
  float* d;
  const uint32_t *a, *b;
};

// Eight columns of B, C or D side by side.
using Wide __attribute__((vector_size(32))) = float;

template <Element kType>
void decode(uint32_t bits, float* low, float* high) {
  if constexpr (kType == Element::tf32) {
    *low = __uint_as_float(bits & ~0x1fffu);
  } else if constexpr (kType == Element::bf16) {
    *low = __uint_as_float(bits << 16);
    *high = __uint_as_float(bits & 0xffff0000u);
  } else {
    *low = toFloat(f16{static_cast<uint16_t>(bits)});
    *high = toFloat(f16{static_cast<uint16_t>(bits >> 16)});
  }
}

// operand: the tiles of M and, from bit 5 on, of N.
template <Element kType>
void multiplyAll(Warp&, Meeting& meeting) {
  constexpr bool kWide = kType == Element::tf32;
  constexpr int kDepth = kWide ? 8 : 16;
  const int tilesM = meeting.operand & 31, tilesN = meeting.operand >> 5;
  Fragments* lanes[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = static_cast<Fragments*>(meeting.left[lane]);
  float a[16][16];
  Wide b[32][16];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const uint32_t* from = lanes[lane]->b;
    for (int n = 0; n < tilesN; ++n) {
      for (int i = 0; i < 2; ++i) {
        const int k = kWide ? t + 4 * i : 2 * t + 8 * i;
        float* to = reinterpret_cast<float*>(b[n]) + 8 * k + g;
        decode<kType>(from[2 * n + i], to, to + 8);
      }
    }
  }
  for (int m = 0; m < tilesM; ++m) {
    for (int lane = 0; lane < kWarp; ++lane) {
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; ++i) {
        float* to = &a[g + 8 * (i % 2)][kWide ? t + 4 * (i / 2) : 2 * t + 8 * (i / 2)];
        decode<kType>(lanes[lane]->a[4 * m + i], to, to + 1);
      }
    }
    for (int n = 0; n < tilesN; ++n) {
      // A lane holds two neighbours of a row: registers 0 and 1 of rows g, 2 and 3 of rows g + 8.
      Wide sum[16];
      float* rows = reinterpret_cast<float*>(sum);
      for (int lane = 0; lane < kWarp; ++lane) {
        const float* d = lanes[lane]->d + 4 * (m * tilesN + n);
        float* to = rows + lane / 4 * 8 + 2 * (lane % 4);
        to[0] = d[0], to[1] = d[1], to[64] = d[2], to[65] = d[3];
      }
      for (int k = 0; k < kDepth; ++k)
        for (int row = 0; row < 16; ++row) sum[row] += a[row][k] * b[n][k];
      for (int lane = 0; lane < kWarp; ++lane) {
        float* d = lanes[lane]->d + 4 * (m * tilesN + n);
        const float* from = rows + lane / 4 * 8 + 2 * (lane % 4);
        d[0] = from[0], d[1] = from[1], d[2] = from[64], d[3] = from[65];
      }
    }
  }
}

}  // namespace

void loadMatrix(uint32_t* r, int count, bool trans, const void* row, Where where) {
  requireShared(row, 16, 16, where);
  Rows rows = {r, static_cast<const char*>(row), where};
  meetAligned(loadAll, trans ? -count : count, &rows, "ldmatrix", where);
}

void multiply(Element type, float* d, const uint32_t* a, const uint32_t* b, int m, int n, Where where) {
  Fragments fragments = {d, a, b};
  const auto compute = type == Element::bf16  ? multiplyAll<Element::bf16>
                       : type == Element::f16 ? multiplyAll<Element::f16>
                                              : multiplyAll<Element::tf32>;
  meetAligned(compute, m | n << 5, &fragments, "mma.sync", where);
}

}  // namespace simt::emu
