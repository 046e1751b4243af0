// Times operators of the CUDA backend on a device, each bound and launched as a program does. One request of words a
// line on stdin, one JSON answer a line on stdout:
//
//     device
//     copy BYTES RUNS
//     operator NAME RUNS [TENSOR | ATTRIBUTE]...
//
// A TENSOR is <DTYPE:SHAPE for an input, <!DTYPE:SHAPE for one that never changes (packed before the clock starts), <-
// for one left out, >DTYPE:SHAPE for an output, where a DTYPE tf32 is float32 that products may round; an ATTRIBUTE is
// @ and numbers, in the order of ops.json, or @ alone where it is left out. So, of a product that nothing follows,
//
//     operator conv2d 20 <bf16:1x64x64x320 <!bf16:320x320x3x3 <!bf16:320 >bf16:1x64x64x320 @1,1 @1,1,1,1 @ @
//
// Seconds are the median of RUNS launches, each between two events, with the level 2 cache written over in between.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "../peers/requests.h"
#include "backend/kernel.h"
#include "backend/registry.h"

namespace {

using namespace refl;

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

class Memory {
 public:
  explicit Memory(size_t bytes) {
    void* at = nullptr;
    check(cudaMalloc(&at, std::max<size_t>(bytes, 1)));
    at_ = static_cast<std::byte*>(at);
  }
  Memory(Memory&& other) noexcept : at_(other.at_) { other.at_ = nullptr; }
  ~Memory() { cudaFree(at_); }
  std::byte* at() const { return at_; }

 private:
  std::byte* at_;
};

class Clock {
 public:
  Clock() {
    for (cudaEvent_t* event : {&begin_, &end_}) check(cudaEventCreateWithFlags(event, 0));
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  ~Clock() {
    for (cudaEvent_t event : {begin_, end_}) cudaEventDestroy(event);
  }

  /** The median and the least of `runs`, in seconds; two more go before to warm up. */
  template <class Run>
  std::string time(int runs, cudaStream_t stream, Run&& run) {
    std::vector<double> seconds;
    for (int i = -2; i < runs; ++i) {
      check(cudaMemsetAsync(flush_.at(), i & 1, kFlush, stream));
      check(cudaEventRecord(begin_, stream));
      check(run());
      check(cudaEventRecord(end_, stream));
      check(cudaEventSynchronize(end_));
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (i >= 0) seconds.push_back(milliseconds / 1e3);
    }
    std::sort(seconds.begin(), seconds.end());
    char text[96];
    std::snprintf(text, sizeof text, "\"seconds\":%.9g,\"least\":%.9g", seconds[seconds.size() / 2], seconds[0]);
    return text;
  }

 private:
  static constexpr size_t kFlush = size_t{128} << 20;  // more than any level 2 cache
  Memory flush_{kFlush};
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class Bench {
 public:
  Bench() {
    check(cudaSetDevice(0));
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    void* staging = nullptr;
    check(cudaMallocHost(&staging, kBlock * 4));
    staging_ = static_cast<std::byte*>(staging);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  ~Bench() {
    cudaFreeHost(staging_);
    cudaStreamDestroy(stream_);
  }

  std::string answer(Words& words) {
    const auto what = next<std::string>(words);
    if (what == "device") return device();
    if (what == "copy") return copy(words);
    if (what == "operator") return measure(words);
    throw std::invalid_argument("unknown request " + what);
  }

 private:
  static constexpr size_t kBlock = size_t{1} << 22;  // random numbers that are repeated

  std::string device() {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0));
    return std::string("{\"name\":\"") + properties.name +
           "\",\"sm\":" + std::to_string(properties.major * 10 + properties.minor) + "}";
  }

  std::string copy(Words& words) {
    const auto bytes = next<size_t>(words);
    const int runs = next<int>(words);
    const Memory from(bytes), to(bytes);
    fill(from, DType::f32, bytes / 4);
    const std::string figures = clock_.time(
        runs, stream_, [&] { return cudaMemcpyAsync(to.at(), from.at(), bytes, cudaMemcpyDeviceToDevice, stream_); });
    return "{" + figures + "}";
  }

  std::string measure(Words& words) {
    NodeSpec node;
    const auto name = next<std::string>(words);
    node.op = findOp(name);
    if (!node.op) throw std::invalid_argument("there is no operator " + name);
    const int runs = next<int>(words);
    for (std::string word; words >> word;) {
      node.tf32 |= word.find("tf32:") != std::string::npos;
      if (word[0] == '<')
        node.inputs.push_back(operand(word.substr(1)));
      else if (word[0] == '>')
        node.outputs.push_back(operand(word.substr(1)));
      else
        node.attrs.push_back(numbers<double>(word.substr(1), ','));
    }
    const size_t group = node.op->group.size(), fixed = node.op->inputs.size();
    const bool whole =
        group ? node.inputs.size() >= fixed && (node.inputs.size() - fixed) % group == 0 : node.inputs.size() == fixed;
    if (!whole || node.outputs.size() != node.op->outputs.size() || node.attrs.size() != node.op->attrs.size())
      throw std::invalid_argument(name + " has other inputs, outputs or attributes");
    const cuda::Bound bound = cuda::kernels().at(name)(node);
    std::vector<Memory> memory;
    const auto tensors = [&](const std::vector<Operand>& operands, bool filled) {
      std::vector<Tensor> all;
      for (const Operand& it : operands) {
        memory.emplace_back(it.present ? static_cast<size_t>(it.size()) * bytesOf(it.dtype) : 0);
        if (filled && it.present) fill(memory.back(), it.dtype, static_cast<size_t>(it.size()));
        Tensor tensor;
        tensor.dtype = it.dtype;
        tensor.shape = it.shape;
        tensor.data = it.present ? memory.back().at() : nullptr;
        all.push_back(tensor);
      }
      return all;
    };
    const std::vector<Tensor> in = tensors(node.inputs, true), out = tensors(node.outputs, false);
    std::vector<const std::byte*> packed;
    for (const cuda::PackedInput& pack : bound.packed) {
      memory.emplace_back(pack.bytes);
      check(pack.make(in[pack.input].data, memory.back().at(), stream_));
      packed.push_back(memory.back().at());
    }
    const Memory scratch(bound.scratch);
    const cuda::Args args = {in.data(), out.data(), packed.data(), scratch.at(), stream_};
    const std::string figures = clock_.time(runs, stream_, [&] { return bound.run(args); });
    return "{" + figures + ",\"scratch\":" + std::to_string(bound.scratch) + "}";
  }

  static Operand operand(std::string text) {
    Operand it;
    if (text == "-") return it;
    it.present = true;
    it.frozen = text[0] == '!';
    if (it.frozen) text.erase(0, 1);
    const size_t colon = text.find(':');
    const std::string dtype = text.substr(0, colon);
    const std::pair<const char*, DType> dtypes[] = {{"f32", DType::f32}, {"tf32", DType::f32}, {"bf16", DType::bf16},
                                                    {"f16", DType::f16}, {"i32", DType::i32},  {"u8", DType::u8}};
    const auto found = std::find_if(std::begin(dtypes), std::end(dtypes), [&](auto& d) { return dtype == d.first; });
    if (colon == std::string::npos || found == std::end(dtypes)) throw std::invalid_argument("no tensor: " + text);
    it.dtype = found->second;
    it.shape = numbers<int64_t>(text.substr(colon + 1), 'x');
    return it;
  }

  template <class T>
  static std::vector<T> numbers(const std::string& text, char separator) {
    std::vector<T> all;
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, separator);) all.push_back(static_cast<T>(std::stod(part)));
    return all;
  }

  /** Random numbers from -0.5 to 0.5; whole ones from 0 to 7. */
  void fill(const Memory& memory, DType dtype, size_t count) {
    const size_t block = std::min(count, kBlock), width = bytesOf(dtype);
    check(cudaStreamSynchronize(stream_));  // the last copy from `staging_`
    const uint32_t tensor = filled_++;
    const auto write = [&](auto convert) {
      for (size_t i = 0; i < block; ++i) {
        const auto value = convert(valueAt(static_cast<uint32_t>(i), tensor));
        std::memcpy(staging_ + i * width, &value, width);
      }
    };
    if (dtype == DType::f32) write([](float x) { return x; });
    if (dtype == DType::bf16) write(simt::fromFloat<simt::bf16>);
    if (dtype == DType::f16) write(simt::fromFloat<simt::f16>);
    if (dtype == DType::i32) write([](float x) { return static_cast<int32_t>((x + 0.5f) * 8); });
    if (dtype == DType::u8) write([](float x) { return static_cast<uint8_t>((x + 0.5f) * 8); });
    for (size_t done = 0; done < count; done += block) {
      const size_t bytes = std::min(block, count - done) * width;
      check(cudaMemcpyAsync(memory.at() + done * width, staging_, bytes, cudaMemcpyHostToDevice, stream_));
    }
  }

  Clock clock_;
  cudaStream_t stream_ = nullptr;
  std::byte* staging_ = nullptr;
  uint32_t filled_ = 0;
};

}  // namespace

int main() {
  try {
    Bench bench;
    return serve([&](Words& words) { return bench.answer(words); });
  } catch (const std::exception& error) {
    std::cout << "{\"error\":\"" << error.what() << "\"}" << std::endl;
    return 1;
  }
}
