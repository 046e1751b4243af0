#pragma once
// One thread a device. Jobs run in the order they were posted; destruction lets the running one finish.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace refl {

class Executor {
 public:
  // `onStart` runs first on the new thread (it sets that thread's number of workers).
  explicit Executor(std::function<void()> onStart);
  ~Executor();
  Executor(const Executor&) = delete;

  void post(std::function<void()> job);

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace refl
