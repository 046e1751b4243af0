#include "exec/executor.h"

namespace refl {

bool Door::post(std::function<void()> job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (to_) to_->post(std::move(job));
  return to_ != nullptr;
}

void Door::close() {
  std::lock_guard<std::mutex> lock(mutex_);
  to_ = nullptr;
}

Executor::Executor(std::function<void()> onStart)
    : door_(std::make_shared<Door>(*this)), thread_([this, onStart = std::move(onStart)] {
        onStart();
        loop();
      }) {}

Executor::~Executor() {
  door_->close();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Executor::post(std::function<void()> job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

// Jobs still queued when the executor closes run too: each must settle the promise it stands for.
void Executor::loop() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return closing_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace refl
