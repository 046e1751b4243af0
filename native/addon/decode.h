#pragma once
// JavaScript values as native ones. Every function throws Error("ERR_PROGRAM"...) on a value of the wrong kind.
#include <napi.h>

#include "exec/program.h"

namespace refl {

DType decodeDType(const Napi::Value& value);
Shape decodeShape(const Napi::Value& value);
ProgramDecl decodeProgram(const Napi::Object& spec);

// The bytes of a typed array.
std::vector<std::byte> decodeBytes(const Napi::Value& value);

}  // namespace refl
