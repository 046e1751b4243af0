#include "addon/decode.h"

#include <cmath>

#include "exec/status.h"

namespace refl {
namespace {

[[noreturn]] void expected(const char* what) { throw Error("ERR_PROGRAM", std::string("expected ") + what); }

Napi::Array arrayOf(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) expected(what);
  return value.As<Napi::Array>();
}

double number(const Napi::Value& value, const char* what) {
  if (!value.IsNumber()) expected(what);
  return value.As<Napi::Number>().DoubleValue();
}

int64_t integer(const Napi::Value& value, const char* what) {
  const double v = number(value, what);
  if (std::trunc(v) != v || std::abs(v) > 0x1p53) expected(what);
  return static_cast<int64_t>(v);
}

// Grown item by item, so that a length that nothing stands behind costs nothing.
template <class T>
std::vector<T> list(const Napi::Value& value, const char* what, T (*item)(const Napi::Value&, const char*)) {
  const Napi::Array array = arrayOf(value, what);
  std::vector<T> out;
  for (uint32_t i = 0; i < array.Length(); i++) out.push_back(item(array[i], what));
  return out;
}

std::vector<int64_t> integers(const Napi::Value& value, const char* what) { return list(value, what, integer); }

std::string text(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString()) expected(name);
  return value.As<Napi::String>();
}

template <class Fn>
void each(const Napi::Value& value, const char* name, Fn&& fn) {
  const Napi::Array array = arrayOf(value, name);
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
  if (name == "bf16") return DType::bf16;
  if (name == "f16") return DType::f16;
  expected("a dtype");
}

Shape decodeShape(const Napi::Value& value) { return integers(value, "a shape"); }

std::vector<FileSlice> decodeSlices(const Napi::Value& value) {
  std::vector<FileSlice> slices;
  each(value, "slices", [&](const Napi::Object& s) {
    const int64_t offset = integer(s.Get("offset"), "an offset");
    if (offset < 0) expected("an offset");
    const Napi::Value strides = s.Get("strides");
    slices.push_back({text(s, "path"), static_cast<uint64_t>(offset), text(s, "dtype"), decodeShape(s.Get("shape")),
                      strides.IsUndefined() ? Shape{} : integers(strides, "strides")});
  });
  return slices;
}

ProgramDecl decodeProgram(const Napi::Object& spec) {
  ProgramDecl decl;
  each(spec.Get("tensors"), "tensors", [&](const Napi::Object& t) {
    decl.tensors.push_back({decodeDType(t.Get("dtype")), decodeShape(t.Get("shape")),
                            integer(t.Get("offset"), "an offset"), integer(t.Get("slot"), "a slot")});
  });
  each(spec.Get("nodes"), "nodes", [&](const Napi::Object& n) {
    NodeDecl node{text(n, "op"),
                  text(n, "layer"),
                  integers(n.Get("inputs"), "inputs"),
                  integers(n.Get("outputs"), "outputs"),
                  {}};
    const Napi::Array attrs = arrayOf(n.Get("attrs"), "attrs");
    for (uint32_t i = 0; i < attrs.Length(); i++) node.attrs.push_back(list(attrs[i], "attrs", number));
    decl.nodes.push_back(std::move(node));
  });
  const auto ports = [&](const char* name, std::vector<Port>& into) {
    each(spec.Get(name), name, [&](const Napi::Object& p) {
      into.push_back({text(p, "name"), integer(p.Get("tensor"), "a tensor")});
    });
  };
  ports("feeds", decl.feeds);
  ports("outputs", decl.outputs);
  each(spec.Get("taps"), "taps", [&](const Napi::Object& t) {
    decl.taps.push_back({integer(t.Get("tensor"), "a tensor"), integer(t.Get("before"), "a node")});
  });
  decl.segments = integers(spec.Get("segments"), "segments");
  decl.arenaBytes = integer(spec.Get("arenaBytes"), "arenaBytes");
  decl.firstUpdate = integer(spec.Get("firstUpdate"), "firstUpdate");
  return decl;
}

ByteView decodeBytes(const Napi::Value& value) {
  if (!value.IsTypedArray()) expected("a typed array");
  // The plain call: the wrapper's ArrayBuffer refuses the shared memory that a worker may bring.
  void* data = nullptr;
  if (napi_get_typedarray_info(value.Env(), value, nullptr, nullptr, &data, nullptr, nullptr) != napi_ok)
    expected("bytes");
  return {static_cast<const std::byte*>(data), value.As<Napi::TypedArray>().ByteLength()};
}

size_t decodeSize(const Napi::Value& value) {
  const int64_t size = integer(value, "a number of bytes");
  if (size < 0) expected("a number of bytes");
  return static_cast<size_t>(size);
}

}  // namespace refl
