#pragma once
// The CUDA library, which is opened at run time: the addon itself needs neither a CUDA toolkit nor a driver.
#include <memory>
#include <string>

#include "exec/backend.h"
#include "exec/cuda_abi.h"
#include "exec/executor.h"

namespace refl {

// Opens the library at `path` and returns its table, which stays valid: the library is never closed. Throws ERR_DEVICE
// where the file is no library, is cut short, lacks the entry or was built for another version of this addon.
const ReflCuda& openCudaLibrary(const std::string& path);

// Opens device `index` of a library; `tf32`: its products of float32 may round their operands to tf32. `executor` is
// the thread that calls the backend's functions, and frees what others drop. Throws ERR_DEVICE.
std::shared_ptr<Backend> cudaBackend(const ReflCuda& library, int index, bool tf32, Executor& executor);

}  // namespace refl
