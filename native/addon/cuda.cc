#include "addon/cuda.h"

#include <dlfcn.h>
#include <elf.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "exec/status.h"

namespace refl {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw Error("ERR_DEVICE", "the CUDA library " + path + " cannot be used: " + why);
}

// The loader maps a library before it looks at most of it, so one that was cut short would raise SIGBUS there.
void checkWhole(const std::string& path) {
  struct stat found;
  if (stat(path.c_str(), &found) != 0) refuse(path, std::strerror(errno));
  if (!S_ISREG(found.st_mode)) refuse(path, "it is no regular file");
  const auto size = static_cast<uint64_t>(found.st_size);
  const auto inside = [&](uint64_t offset, uint64_t bytes) { return offset <= size && bytes <= size - offset; };
  std::ifstream file(path, std::ios::binary);
  Elf64_Ehdr header;
  const bool elf = file.read(reinterpret_cast<char*>(&header), sizeof header) &&
                   std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
                   header.e_phentsize == sizeof(Elf64_Phdr);
  if (!elf) refuse(path, "it is no shared library of this machine");
  bool whole = inside(header.e_shoff, uint64_t{header.e_shnum} * header.e_shentsize) && file.seekg(header.e_phoff);
  for (int i = 0; whole && i < header.e_phnum; i++) {
    Elf64_Phdr part;
    whole = file.read(reinterpret_cast<char*>(&part), sizeof part) && inside(part.p_offset, part.p_filesz);
  }
  if (!whole) refuse(path, "the file is cut short; build it again with \"npm run build:cuda\"");
}

}  // namespace

const ReflCuda& openCudaLibrary(const std::string& path) {
  checkWhole(path);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    refuse(path, why ? why : "it does not load");
  }
  const auto get = reinterpret_cast<ReflCudaGet>(dlsym(library, "refl_cuda_get"));
  if (!get) refuse(path, "it has no entry refl_cuda_get, so it is another library");
  const ReflCuda* table = get(REFL_CUDA_ABI);
  if (!table || table->abi != REFL_CUDA_ABI || !table->reason || !table->build) {
    refuse(path, "it was built for another version of this package; build it again with \"npm run build:cuda\"");
  }
  return *table;
}

}  // namespace refl
