#include "addon/device.h"

#include <omp.h>

#include <exception>
#include <future>
#include <thread>
#include <vector>

#include "addon/cuda.h"
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

// Throws unless the system lets `count` more threads run at once. The OpenMP runtime would end the process over it.
void tryThreads(int count) {
  std::promise<void> over;
  const std::shared_future<void> wait = over.get_future().share();
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(count));
  std::string why;
  try {
    for (int i = 0; i < count; i++) threads.emplace_back([wait] { wait.wait(); });
  } catch (const std::exception& error) {
    why = error.what();
  }
  over.set_value();
  const size_t started = threads.size();
  for (std::thread& thread : threads) thread.join();
  if (!why.empty()) {
    throw Error("ERR_DEVICE", "the system starts only " + std::to_string(started) + " of " + std::to_string(count) +
                                  " threads (" + why + "): ask for fewer threads");
  }
}

const Kernels& kernelsOf(const std::string& kind, int threads) {
  if (kind == "null") return nullKernels();
  if (kind != "cpu") throw Error("ERR_DEVICE", "unknown device " + kind);
  const std::string isa = cpuIsa();
  if (isa.empty()) throw Error("ERR_DEVICE", "this processor lacks AVX2 and FMA, which the CPU kernels need");
  tryThreads(threads);
#ifdef __x86_64__
  return isa == "v4" ? v4::kernels() : v3::kernels();
#else
  return base::kernels();
#endif
}

// Starts the threads of the kernels' teams, which stay: all teams are of one size (see parallelFor).
void startTeam() {
#pragma omp parallel
  { asm volatile(""); }
}

}  // namespace

Device::Device(const std::string& kind_, int threads_, std::string library_, bool tf32_)
    : kind(kind_), threads(threads_), library(std::move(library_)), tf32(tf32_), executor([threads_] {
        omp_set_dynamic(0);  // the environment may ask for teams that vary in size, and with them results
        omp_set_num_threads(threads_);
      }) {}

void Device::open() {
  if (library.empty()) {
    backend = hostBackend(kernelsOf(kind, threads));
    if (kind == "cpu") startTeam();
  } else {
    backend = cudaBackend(openCudaLibrary(library), std::stoi(kind.substr(kind.find(':') + 1)), tf32, executor);
  }
  isOpen = true;
}

}  // namespace refl
