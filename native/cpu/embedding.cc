// Row lookup and its adjoint. Both are limited by memory: rows * width elements read and written.
#include <cstring>

#include "cpu/support.h"

namespace refl::REFL_ISA {

namespace {

// Before any row is touched: a bad index comes with a feed, so it must be an error and never a stray read.
void checkIndices(const int32_t* indices, int64_t count, int64_t rows, const std::string& where) {
  for (int64_t i = 0; i < count; i++) {
    if (indices[i] < 0 || indices[i] >= rows) {
      throw Error("ERR_FEED", where + ": index " + std::to_string(indices[i]) + " at position " + std::to_string(i) +
                                  " is outside of the table of " + std::to_string(rows) + " rows");
    }
  }
}

std::string nameOf(const NodeSpec& node) { return (node.layer.empty() ? "" : node.layer + ": ") + node.op->name; }

}  // namespace

// Threads split the indices; a row is one memcpy.
Bound bindEmbedding(const NodeSpec& node) {
  const int64_t rows = node.inputs[0].dim(0), width = node.inputs[0].dim(1), count = node.inputs[1].size();
  const size_t bytes = static_cast<size_t>(width) * bytesOf(node.inputs[0].dtype);
  const auto run = [=, where = nameOf(node)](const Args& args) {
    const auto* table = args.in[0].as<std::byte>();
    const auto* indices = args.in[1].as<int32_t>();
    checkIndices(indices, count, rows, where);
    parallelFor(count, 65536 / static_cast<int64_t>(bytes + 1), [&](int64_t begin, int64_t end) {
      auto* y = args.out[0].as<std::byte>();
      for (int64_t i = begin; i < end; i++) {
        std::memcpy(y + static_cast<size_t>(i) * bytes, table + static_cast<size_t>(indices[i]) * bytes, bytes);
      }
    });
  };
  return {run, 0};
}

// Threads split the table's rows and each scans all indices, so that every row adds up in the order of the indices
// whatever the thread count.
Bound bindEmbeddingGrad(const NodeSpec& node) {
  const int64_t rows = node.outputs[0].dim(0), width = node.outputs[0].dim(1), count = node.inputs[0].size();
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [=, where = nameOf(node)](const Args& args) {
      const auto* indices = args.in[0].as<int32_t>();
      checkIndices(indices, count, rows, where);
      parallelFor(rows, 65536 / (width + 1), [&](int64_t begin, int64_t end) {
        T* table = args.out[0].as<T>();
        std::fill(table + begin * width, table + end * width, T(0));
        for (int64_t i = 0; i < count; i++) {
          if (indices[i] < begin || indices[i] >= end) continue;
          const T* dy = args.in[1].as<T>() + i * width;
          T* row = table + indices[i] * width;
#pragma omp simd
          for (int64_t c = 0; c < width; c++) row[c] += dy[c];
        }
      });
    };
    return {run, 0};
  });
}

}  // namespace refl::REFL_ISA
