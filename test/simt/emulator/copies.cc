// cp.async: a copy is checked where it is issued, its destination is NaN from then on, and it lands at the wait that
// covers its group, reading its source as late as that.
#include <cstring>

#include "block.h"
#include "simt/async.h"

namespace simt::emu {
namespace {

void land(Lane& lane, const Copy& copy, Where where) {
  race::read(lane, copy.from, copy.valid, where);
  race::write(lane, copy.to, copy.bytes, where);
  std::memcpy(copy.to, copy.from, copy.valid);
  std::memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
}

}  // namespace

void copyAsync(void* to, const void* from, int bytes, int valid, Where where) {
  Lane& lane = self();
  if (valid < 0 || valid > bytes) fault("bad copy", where, "%d valid of %d bytes", valid, bytes);
  if (reinterpret_cast<uintptr_t>(from) % bytes)
    fault("misaligned access", where, "an asynchronous copy of %d bytes from %p", bytes, from);
  requireShared(to, bytes, bytes, where);
  if (valid > 0) {
    // An address out of bounds is reported here, with the kernel on the stack, and not at the wait.
    const volatile char* source = static_cast<const char*>(from);
    (void)source[0];
    (void)source[valid - 1];
    race::read(lane, from, valid, where);
  }
  race::write(lane, to, bytes, where);
  std::memset(to, 0xff, bytes);
  lane.copies.push_back({to, from, bytes, valid});
}

void copyWait(int pending, Where where) {
  Lane& lane = self();
  const int done = static_cast<int>(lane.groups.size()) - pending;
  if (done <= 0) return;
  const size_t count = lane.groups[done - 1];
  for (size_t i = 0; i < count; ++i) land(lane, lane.copies[i], where);
  lane.copies.erase(lane.copies.begin(), lane.copies.begin() + count);
  lane.groups.erase(lane.groups.begin(), lane.groups.begin() + done);
  for (size_t& end : lane.groups) end -= count;
}

}  // namespace simt::emu

void simt::cpAsyncCommit() {
  emu::Lane& lane = emu::self();
  lane.groups.push_back(lane.copies.size());
}
