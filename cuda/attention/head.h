// What all kernels of attention share: which part of the work a block has, and where its rows lie.
#pragma once
#include "attention/attention.h"
#include "simt/simt.h"

namespace refl::cuda::attn {

using namespace simt;

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
// Scores are kept from falling below this: a row of -inf alone has a maximum to be compared with, and equal weights.
constexpr float kLowest = -1e38f;

/** Whether rows and heads start at multiples of 16 bytes, and the tensors too. */
template <class T, class... Pointers>
bool aligned(const AttentionShape& shape, const Pointers*... at) {
  return shape.size % kPack<T> == 0 && ((reinterpret_cast<size_t>(at) | ...) % 16) == 0;
}

/** Which part of the work a block has: tiles of one head are neighbours, so that they share its rows in L2. */
struct Block {
  int tile, head, item;
  __device__ __forceinline__ Block(int tiles, int heads) {
    const int block = static_cast<int>(blockIdx.x);
    tile = block % tiles;
    head = block / tiles % heads;
    item = block / tiles / heads;
  }
};

/** A head's rows of a tensor [N, length, heads * size]. */
template <class T>
struct Head {
  T* at;
  int pitch, length, size;
  bool aligned;
  __device__ __forceinline__ Head(T* tensor, const AttentionShape& shape, int item, int head, int length, bool aligned)
      : at(tensor + static_cast<size_t>(item) * length * shape.heads * shape.size + head * shape.size),
        pitch(shape.heads * shape.size),
        length(length),
        size(shape.size),
        aligned(aligned) {}
};

/** A head's matrix of the bias; null without one. */
template <class T>
__device__ __forceinline__ T* biasOf(T* bias, const AttentionShape& shape, int item, int head) {
  if (!bias) return nullptr;
  const int entry = item % shape.groups * shape.biasHeads + (shape.biasHeads == 1 ? 0 : head);
  return bias + static_cast<size_t>(entry) * shape.queries * shape.keys;
}

}  // namespace refl::cuda::attn
