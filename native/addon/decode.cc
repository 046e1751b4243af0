#include "addon/decode.h"

#include "exec/status.h"

namespace refl {
namespace {

[[noreturn]] void expected(const char* what) { throw Error("ERR_PROGRAM", std::string("expected ") + what); }

Napi::Array arrayOf(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) expected(what);
  return value.As<Napi::Array>();
}

template <class T>
std::vector<T> numbers(const Napi::Value& value, const char* what) {
  const Napi::Array array = arrayOf(value, what);
  std::vector<T> out(array.Length());
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value item = array[i];
    if (!item.IsNumber()) expected(what);
    out[i] = static_cast<T>(item.As<Napi::Number>().DoubleValue());
  }
  return out;
}

int64_t integer(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) expected(name);
  return value.As<Napi::Number>().Int64Value();
}

std::string text(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString()) expected(name);
  return value.As<Napi::String>();
}

template <class Fn>
void each(const Napi::Object& object, const char* name, Fn&& fn) {
  const Napi::Array array = arrayOf(object.Get(name), name);
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value item = array[i];
    if (!item.IsObject()) expected(name);
    fn(item.As<Napi::Object>());
  }
}

}  // namespace

DType decodeDType(const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "f32") return DType::f32;
  if (name == "f64") return DType::f64;
  if (name == "i32") return DType::i32;
  if (name == "u8") return DType::u8;
  expected("a dtype");
}

Shape decodeShape(const Napi::Value& value) { return numbers<int64_t>(value, "a shape"); }

ProgramDecl decodeProgram(const Napi::Object& spec) {
  ProgramDecl decl;
  each(spec, "tensors", [&](const Napi::Object& t) {
    decl.tensors.push_back(
        {decodeDType(t.Get("dtype")), decodeShape(t.Get("shape")), integer(t, "offset"), integer(t, "slot")});
  });
  each(spec, "nodes", [&](const Napi::Object& n) {
    NodeDecl node{text(n, "op"), text(n, "layer"), numbers<int64_t>(n.Get("inputs"), "inputs"),
                  numbers<int64_t>(n.Get("outputs"), "outputs"), {}};
    const Napi::Array attrs = arrayOf(n.Get("attrs"), "attrs");
    for (uint32_t i = 0; i < attrs.Length(); i++) node.attrs.push_back(numbers<double>(attrs[i], "attrs"));
    decl.nodes.push_back(std::move(node));
  });
  const auto ports = [&](const char* name, std::vector<Port>& into) {
    each(spec, name, [&](const Napi::Object& p) { into.push_back({text(p, "name"), integer(p, "tensor")}); });
  };
  ports("feeds", decl.feeds);
  ports("outputs", decl.outputs);
  decl.segments = numbers<int64_t>(spec.Get("segments"), "segments");
  decl.arenaBytes = integer(spec, "arenaBytes");
  decl.firstUpdate = integer(spec, "firstUpdate");
  return decl;
}

std::vector<std::byte> decodeBytes(const Napi::Value& value) {
  if (!value.IsTypedArray()) expected("a typed array");
  const auto array = value.As<Napi::TypedArray>();
  const auto* data = static_cast<const std::byte*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  return {data, data + array.ByteLength()};
}

}  // namespace refl
