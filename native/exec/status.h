#pragma once
// The one exception type that native code throws. `code` is a stable string that JavaScript sees as error.code.
#include <stdexcept>
#include <string>

namespace refl {

class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

}  // namespace refl
