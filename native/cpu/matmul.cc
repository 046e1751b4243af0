// matmul and linear: blocked products by gemm.h. Bytes moved: A once per block of columns, B once per thread row
// of the grid, C once per kBlockDepth of the depth, and once for each step of an epilogue, from the cache. Frozen
// matrices are packed once.
#include "cpu/epilogue.h"
#include "cpu/kept.h"

namespace refl::REFL_ISA {

namespace {

struct Product {
  int64_t batch, rows, columns, depth;
  bool transposeA, transposeB;
  bool sharedB;  // one matrix b for the whole batch
};

// Packs a frozen matrix; `room` has space for `each` elements a thread: kPanel columns where b's values come from a
// file, and as many again where they are kept in 16 bits.
template <class T, class S>
void packWhole(const Product& p, Values& b, S* to, T* room, int64_t each) {
  const T* all = p.transposeB ? nullptr : b.all<T>();
  parallelFor(ceilDiv(p.columns, kPanel<T>), 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kPanel<T>; first < std::min(p.columns, end * kPanel<T>); first += kPanel<T>) {
      const int64_t columns = std::min(p.columns - first, kPanel<T>);
      T* own = room + omp_get_thread_num() * each;
      keep(to + first * p.depth, packedSize<T>(columns, p.depth), own + kPanel<T> * p.depth, [&](T* panel) {
        if (p.transposeB) {
          packColumns(columns, p.depth, b.part(first * p.depth, columns * p.depth, own), p.depth, panel);
        } else {
          packRows<T>(
              columns, p.depth, [&](int64_t k) { return all + k * p.columns + first; }, panel);
        }
      });
    }
  });
}

// Copies a block of op(A) to rows of `ld`.
template <class T>
void copyBlock(const Product& p, const T* a, int64_t row, int64_t rows, int64_t k, int64_t depth, T* to, int64_t ld) {
  if (!p.transposeA) {
    for (int64_t i = 0; i < rows; i++) std::copy_n(a + (row + i) * p.depth + k, depth, to + i * ld);
    return;
  }
  transpose(depth, rows, a + k * p.rows + row, p.rows, [&](int64_t i) { return to + i * ld; });
}

// Tasks are regions of the grid of each product of the batch; with many products, whole products. A frozen b is kept as
// S.
template <class T, class S>
Bound bindProduct(const Operand& b, const Product& p, bool hasBias, const Epilogue<T>& epilogue) {
  constexpr bool narrow = !std::is_same_v<T, S>;
  const int64_t threads = omp_get_max_threads();
  const bool frozen = b.frozen && p.sharedB;
  const std::string key = "matmul " + std::to_string(p.transposeB) + " " + std::to_string(p.columns);
  const auto pack = frozen ? b.buffer->pack(key, packedSize<T>(p.columns, p.depth) * sizeof(S)) : nullptr;
  const Grid grid = gridOf<T>(p.rows, p.columns, p.batch >= 4 * threads ? 1 : threads, frozen);
  const bool direct = !p.transposeA && Rows<T>::pays(p.depth);
  const int64_t each =
      std::max(regionScratch<T>(frozen && !narrow), frozen ? (narrow ? 2 : 1) * kPanel<T> * p.depth : 0);

  const auto run = [=](const Args& args) {
    std::shared_ptr<std::byte> packed;
    if (pack) {
      packed = pack->get([&](Values& values, std::byte* to) {
        packWhole(p, values, reinterpret_cast<S*>(to), reinterpret_cast<T*>(args.scratch), each);
      });
    }
    const T* bias = hasBias ? args.in[2].as<T>() : nullptr;
    parallelFor(p.batch * grid.rows * grid.columns, 1, [&](int64_t begin, int64_t end) {
      T* scratch = reinterpret_cast<T*>(args.scratch) + each * omp_get_thread_num();
      for (int64_t task = begin; task < end; task++) {
        const int64_t item = task / (grid.rows * grid.columns), cell = task % (grid.rows * grid.columns);
        const Range rows = partOf(p.rows, kTileRows, cell / grid.columns, grid.rows);
        const Range columns = partOf(p.columns, kPanel<T>, cell % grid.columns, grid.columns);
        const T* left = args.in[0].as<T>() + item * p.rows * p.depth;
        T* y = args.out[0].as<T>() + item * p.rows * p.columns;
        const auto a = [&](int64_t row, int64_t count, int64_t k, int64_t depth, T* to, int64_t ld) {
          copyBlock(p, left, rows.begin + row, count, k, depth, to, ld);
        };
        const auto c = [&](int64_t row) { return y + (rows.begin + row) * p.columns + columns.begin; };
        const auto finish = [&](T* from, int64_t count) { epilogue.finish(args, from, count); };
        const T* start = bias ? bias + columns.begin : nullptr;
        const auto multiplied = [&](const auto& b) {
          if (direct) {
            const Rows<T> own{left + rows.begin * p.depth, p.depth};
            gemmRegion(rows.size(), columns.size(), p.depth, own, b, start, c, finish, scratch);
          } else {
            gemmRegion(rows.size(), columns.size(), p.depth, a, b, start, c, finish, scratch);
          }
        };
        if (packed) {
          multiplied(kept<T>(reinterpret_cast<const S*>(packed.get()) + columns.begin * p.depth, p.depth));
        } else {
          const T* right = args.in[1].as<T>() + (p.sharedB ? 0 : item * p.columns * p.depth);
          const auto block = [&](int64_t column, int64_t count, int64_t k, int64_t depth, T* to) {
            const int64_t j = columns.begin + column;
            if (p.transposeB) {
              packColumns(count, depth, right + j * p.depth + k, p.depth, to);
            } else {
              packRows<T>(
                  count, depth, [&](int64_t x) { return right + (k + x) * p.columns + j; }, to);
            }
          };
          multiplied(block);
        }
      }
    });
  };
  Bound bound{run, static_cast<size_t>(threads * each) * sizeof(T)};
  if (frozen) bound.packed = {{1, pack}};
  return bound;
}

}  // namespace

Bound bindMatmul(const NodeSpec& node) {
  const Operand &a = node.inputs[0], &b = node.inputs[1], &y = node.outputs[0];
  Product p{1, y.dim(-2), y.dim(-1), 0, node.flag("transposeA"), node.flag("transposeB"), b.rank() == 2};
  p.depth = a.dim(p.transposeA ? -2 : -1);
  p.batch = y.size() / std::max<int64_t>(1, p.rows * p.columns);
  if (p.sharedB && !p.transposeA) {  // the batch is then more rows
    p.rows *= p.batch;
    p.batch = 1;
  }
  return onKept(y.dtype, b, node, [&](auto tag, auto stored) {
    using T = decltype(tag);
    return bindProduct<T, decltype(stored)>(b, p, false, Epilogue<T>(node, 2));
  });
}

Bound bindLinear(const NodeSpec& node) {
  const Operand &weight = node.inputs[1], &y = node.outputs[0];
  const int64_t out = weight.dim(0);
  const Product p{1, y.size() / std::max<int64_t>(1, out), out, weight.dim(1), false, true, true};
  return onKept(y.dtype, weight, node, [&](auto tag, auto stored) {
    using T = decltype(tag);
    return bindProduct<T, decltype(stored)>(weight, p, node.inputs[2].present, Epilogue<T>(node, 3));
  });
}

}  // namespace refl::REFL_ISA
