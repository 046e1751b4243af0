// Global memory that tests have told of.
#include "emulator.h"
#include "race.h"

namespace simt::emu {
void registerGlobal(const void* at, size_t bytes) { race::addGlobal(at, bytes); }
void unregisterGlobal(const void* at) { race::removeGlobal(at); }
}  // namespace simt::emu
