#pragma once
// One thread a device. Jobs run in the order they were posted; destruction lets the running one finish.
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace refl {

class Executor;

// A way to an executor that may be gone: what outlives it posts through this.
class Door {
 public:
  explicit Door(Executor& to) : to_(&to) {}

  // False, and nothing posted, where the executor is closing or gone.
  bool post(std::function<void()> job);
  void close();

 private:
  std::mutex mutex_;
  Executor* to_;
};

class Executor {
 public:
  // `onStart` runs first on the new thread (it sets that thread's number of workers).
  explicit Executor(std::function<void()> onStart);
  ~Executor();
  Executor(const Executor&) = delete;

  void post(std::function<void()> job);
  std::shared_ptr<Door> door() const { return door_; }

 private:
  void loop();

  const std::shared_ptr<Door> door_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace refl
