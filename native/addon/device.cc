#include "addon/device.h"

#include <omp.h>

#include "exec/status.h"
#include "null/backend.h"

namespace refl {

#ifdef __x86_64__
namespace v3 {
const Kernels& kernels();
}
namespace v4 {
const Kernels& kernels();
}
#else
namespace base {
const Kernels& kernels();
}
#endif

std::string cpuIsa() {
#ifdef __x86_64__
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? "v4" : v3 ? "v3" : "";
#else
  return "base";
#endif
}

namespace {

const Kernels& kernelsOf(const std::string& kind) {
  if (kind == "null") return nullKernels();
  if (kind != "cpu") throw Error("ERR_DEVICE", "unknown device " + kind);
  const std::string isa = cpuIsa();
  if (isa.empty()) throw Error("ERR_DEVICE", "this processor lacks AVX2 and FMA, which the CPU kernels need");
#ifdef __x86_64__
  return isa == "v4" ? v4::kernels() : v3::kernels();
#else
  return base::kernels();
#endif
}

}  // namespace

Device::Device(const std::string& kind_, int threads_)
    : kind(kind_), threads(threads_), kernels(kernelsOf(kind_)), executor([threads_] {
        omp_set_dynamic(0);  // the environment may ask for teams that vary in size, and with them results
        omp_set_num_threads(threads_);
      }) {}

}  // namespace refl
