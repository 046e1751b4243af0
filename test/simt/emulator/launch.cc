// Launches: checks of the configuration, and blocks shared out over host threads.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <thread>

#include "block.h"

namespace simt::emu {
namespace {

std::mutex poolLock;
std::vector<std::unique_ptr<Block>> pool;

// A block's stacks are costly to make, so blocks are kept for the next launch.
std::unique_ptr<Block> takeBlock() {
  {
    const std::lock_guard<std::mutex> hold(poolLock);
    if (!pool.empty()) {
      std::unique_ptr<Block> block = std::move(pool.back());
      pool.pop_back();
      return block;
    }
  }
  return std::make_unique<Block>();
}

void giveBlock(std::unique_ptr<Block> block) {
  const std::lock_guard<std::mutex> hold(poolLock);
  pool.push_back(std::move(block));
}

cudaError_t refuse(const char* why, size_t value, size_t limit) {
  char line[160];
  std::snprintf(line, sizeof line, "launch refused: %s is %zu; the limit is %zu", why, value, limit);
  setFault(line);
  return cudaErrorInvalidConfiguration;
}

Submit submitter = execute;

}  // namespace

Options& options() {
  static Options values;
  return values;
}

void onSubmit(Submit function) { submitter = function ? function : execute; }

cudaError_t submit(const Launch& at, const Task& task) { return submitter(at, task); }

cudaError_t execute(const Launch& at, const Task& task) {
  const size_t threads = static_cast<size_t>(at.block.x) * at.block.y * at.block.z;
  if (threads == 0 || threads > kMaxThreads) return refuse("the number of threads in a block", threads, kMaxThreads);
  if (at.block.z > 64) return refuse("the block's z", at.block.z, 64);
  if (at.grid.x == 0 || at.grid.y == 0 || at.grid.z == 0) return refuse("an extent of the grid", 0, 0x7fffffff);
  if (at.grid.x > 0x7fffffffu) return refuse("the grid's x", at.grid.x, 0x7fffffff);
  if (at.grid.y > 65535 || at.grid.z > 65535) return refuse("the grid's y or z", std::max(at.grid.y, at.grid.z), 65535);
  if (at.shared > options().sharedLimit) return refuse("dynamic shared memory", at.shared, options().sharedLimit);

  Launched launched = {task.name, at, &task, options().schedule};
  const uint64_t blocks = static_cast<uint64_t>(at.grid.x) * at.grid.y * at.grid.z;
  std::vector<uint64_t> order;
  if (launched.seed) {
    order.resize(blocks);
    std::iota(order.begin(), order.end(), 0);
    uint64_t random = launched.seed;
    for (uint64_t i = blocks; i-- > 1;) std::swap(order[i], order[nextRandom(random) % (i + 1)]);
  }
  race::launchBegins();

  std::atomic<uint64_t> counter{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    std::unique_ptr<Block> block = takeBlock();
    for (uint64_t i; !failed && (i = counter++) < blocks;) {
      const uint64_t which = order.empty() ? i : order[i];
      const uint3 index = {static_cast<unsigned>(which % at.grid.x),
                           static_cast<unsigned>(which / at.grid.x % at.grid.y),
                           static_cast<unsigned>(which / at.grid.x / at.grid.y)};
      if (!block->run(launched, index, which)) failed = true;
    }
    giveBlock(std::move(block));
  };
#if defined(__SANITIZE_ADDRESS__) || defined(SIMT_RACE)
  constexpr int kMost = 1;
#else
  constexpr int kMost = 64;
#endif
  const int workers = static_cast<int>(std::min<uint64_t>(std::min(options().threads, kMost), blocks));
  std::vector<std::thread> others;
  for (int i = 1; i < workers; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return failed ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace simt::emu
