// Shared memory of a block: pieces filled with NaN, with red zones between. A piece lies at a multiple of the alignment
// it asks for and of no greater power of two, so that one that asks for too little shows.
#include "simt/shared.h"

#include <cstring>

#include "block.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace simt::emu {
namespace {

constexpr size_t kRedZone = 128;
constexpr char kRed = static_cast<char>(0xcb);

char* newPiece(Block& block, size_t bytes, size_t align) {
  const size_t from = block.sharedEnd;
  const size_t at = roundUp(from + kRedZone, 2 * align) + align;
  char* piece = block.shared + at;
  block.sharedEnd = at + bytes;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(piece, bytes);
#else
  std::memset(block.shared + from, kRed, at - from);
  std::memset(piece + bytes, kRed, kRedZone);
#endif
  std::memset(piece, 0xff, bytes);
  block.pieces.push_back({piece, bytes, align});
  race::addShared(block, piece, bytes);
  return piece;
}

void requireRoom(const Block& block, Where where) {
  const size_t total = block.staticBytes + block.launched->at.shared;
  if (total > options().sharedLimit)
    fault("too much shared memory", where, "%zu static and %zu dynamic bytes; the limit is %zu", block.staticBytes,
          block.launched->at.shared, options().sharedLimit);
}

}  // namespace

void sharedBegin(Block& block) {
  block.sharedEnd = block.staticBytes = block.dynamicBytes = 0;
  block.dynamicAlign = 16;
  block.statics.clear();
  block.pieces.clear();
  block.taken.clear();
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(block.shared, kSharedSpace);
#endif
}

bool sharedIntact([[maybe_unused]] Block& block) {
#ifndef __SANITIZE_ADDRESS__
  const char* from = block.shared;
  for (size_t i = 0; i <= block.pieces.size() && block.sharedEnd; ++i) {
    const bool last = i == block.pieces.size();
    const char* to = last ? block.shared + block.sharedEnd + kRedZone : block.pieces[i].at;
    for (const char* at = from; at < to; ++at) {
      if (*at == kRed) continue;
      setFault("shared memory out of bounds: a block wrote " +
               (i ? std::to_string(at - from) + " bytes after a piece of " + std::to_string(block.pieces[i - 1].bytes)
                  : std::to_string(to - at) + " bytes before its first piece") +
               " bytes" + placeOf(block));
      return false;
    }
    if (!last) from = to + block.pieces[i].bytes;
  }
#endif
  return true;
}

void* staticShared(const void* key, size_t bytes, const char*, Where where) {
  Block& block = *self().owner;
  for (const StaticPiece& piece : block.statics)
    if (piece.key == key) return piece.at;
  block.staticBytes = roundUp(block.staticBytes, 16) + bytes;
  requireRoom(block, where);
  char* at = newPiece(block, bytes, 16);
  block.statics.push_back({key, at});
  return at;
}

void* takeShared(int index, size_t bytes, size_t align, Where where) {
  Block& block = *self().owner;
  if (align < 16 || (align & (align - 1)))
    fault("bad alignment", where, "%zu: must be 16 or a higher power of two", align);
  if (static_cast<size_t>(index) < block.taken.size()) {
    const Piece& piece = block.pieces[block.taken[index]];
    if (piece.bytes != bytes || piece.align != align)
      fault("shared pieces differ", where, "piece %d has %zu bytes here and %zu for another thread", index, bytes,
            piece.bytes);
    return piece.at;
  }
  block.dynamicBytes = roundUp(block.dynamicBytes, align) + bytes;
  if (align > block.dynamicAlign) block.dynamicAlign = align;
  const size_t needed = block.dynamicBytes + block.dynamicAlign - 16;
  if (needed > block.launched->at.shared)
    fault("shared memory too small", where, "the pieces so far need %zu bytes; the launch gives %zu", needed,
          block.launched->at.shared);
  requireRoom(block, where);
  block.taken.push_back(static_cast<int>(block.pieces.size()));
  return newPiece(block, bytes, align);
}

void requireShared(const void* at, size_t bytes, size_t align, Where where) {
  if (reinterpret_cast<uintptr_t>(at) & (align - 1))
    fault("misaligned access", where, "shared address %p is no multiple of %zu", at, align);
  const char* from = static_cast<const char*>(at);
  for (const Piece& piece : self().owner->pieces)
    if (from >= piece.at && from + bytes <= piece.at + piece.bytes) return;
  fault("shared memory out of bounds", where, "%zu bytes at %p lie in no piece of the block's shared memory", bytes,
        at);
}

}  // namespace simt::emu

namespace simt {

uint32_t sharedAddress(const void* at) {
  return static_cast<uint32_t>(static_cast<const char*>(at) - emu::self().owner->shared);
}

}  // namespace simt
