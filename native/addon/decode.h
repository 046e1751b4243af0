#pragma once
// JavaScript values as native ones. Every function throws Error("ERR_PROGRAM"...) on a value of the wrong kind.

// A worker that is being terminated takes no more exceptions: without this, node-addon-api would end the process over
// it.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#include <napi.h>

#include "exec/gather.h"
#include "exec/program.h"

namespace refl {

DType decodeDType(const Napi::Value& value);
Shape decodeShape(const Napi::Value& value);
ProgramDecl decodeProgram(const Napi::Object& spec);
std::vector<FileSlice> decodeSlices(const Napi::Value& value);

// The bytes of a typed array where they lie: to be copied before JavaScript goes on.
struct ByteView {
  const std::byte* data;
  size_t size;
};
ByteView decodeBytes(const Napi::Value& value);

// A number of bytes.
size_t decodeSize(const Napi::Value& value);

}  // namespace refl
