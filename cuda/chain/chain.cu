// Trees of elementwise operators: a stack machine of four vectors in registers. A thread has a vector of 16 bytes of T,
// or one element where rows are no whole number of vectors; it reads that of all inputs first, so that they are on
// their way together, and then runs the program, whose branches all threads take alike. Each input is read once and the
// result written once, which is the limit: a step costs a vector V operations, about 8 to find out which, 2 V moves
// down the stack if it takes two values, and 2 V where it is rounded. With 16-bit vectors eight steps of arithmetic
// stay under the time of two reads and a write on an H100. Arithmetic is float32.
//
// Offsets are found as in map.h's broadcastKernel, and for the same reason nothing is marked __restrict__.
#include "chain/chain.h"
#include "elementwise/apply.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;

/** V floats from elements of From at `from`, or one that stands for all. */
template <class From, int V>
__device__ __forceinline__ void read(float (&x)[V], const From* from, bool repeats) {
  constexpr int kWidth = V < kPack<From> ? V : kPack<From>;
  if (repeats) {
    const float one = toFloat(*from);
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] = one;
    return;
  }
#pragma unroll
  for (int i = 0; i < V; i += kWidth) {
    const Pack<From, kWidth> part = load<kWidth>(from + i);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) x[i + k] = toFloat(part[k]);
  }
}

template <class To, int V>
__device__ __forceinline__ void write(To* to, const float (&x)[V]) {
  constexpr int kWidth = V < kPack<To> ? V : kPack<To>;
#pragma unroll
  for (int i = 0; i < V; i += kWidth) {
    Pack<To, kWidth> part;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) part[k] = fromFloat<To>(x[i + k]);
    store(to + i, part);
  }
}

/** The top of the stack is `at[0]`. */
template <int V>
struct Stack {
  float at[kChainDepth][V] = {};

  __device__ __forceinline__ void push() {
#pragma unroll
    for (int d = kChainDepth - 1; d > 0; --d) {
#pragma unroll
      for (int i = 0; i < V; ++i) at[d][i] = at[d - 1][i];
    }
  }
  template <class Fn>
  __device__ __forceinline__ void unary(Fn&& fn) {
#pragma unroll
    for (int i = 0; i < V; ++i) at[0][i] = fn(at[0][i]);
  }
  template <class Op>
  __device__ __forceinline__ void binary(const Op& op) {
#pragma unroll
    for (int i = 0; i < V; ++i) at[0][i] = apply(op, at[1][i], at[0][i]);
#pragma unroll
    for (int d = 1; d + 1 < kChainDepth; ++d) {
#pragma unroll
      for (int i = 0; i < V; ++i) at[d][i] = at[d + 1][i];
    }
  }
};

/** Runs one step. `numbers` begins with the operator's attributes. */
template <int V>
__device__ __forceinline__ void run(ChainCode code, Stack<V>& stack, const float* numbers) {
  const auto map = [&](const auto& op) { stack.unary([&](float x) { return apply(op, x); }); };
  switch (code) {
    case ChainCode::kAdd:
      return stack.binary(Add());
    case ChainCode::kSub:
      return stack.binary(Sub());
    case ChainCode::kMul:
      return stack.binary(Mul());
    case ChainCode::kDiv:
      return stack.binary(Div());
    case ChainCode::kMaximum:
      return stack.binary(Maximum());
    case ChainCode::kMinimum:
      return stack.binary(Minimum());
    case ChainCode::kGreater:
      return stack.binary(Greater());
    case ChainCode::kGreaterEqual:
      return stack.binary(GreaterEqual());
    case ChainCode::kEqual:
      return stack.binary(Equal());
    case ChainCode::kClampGrad:
      return stack.binary(ClampGrad{{}, numbers[0], numbers[1]});
    case ChainCode::kLeakyReluGrad:
      return stack.binary(LeakyReluGrad{{}, numbers[0]});
    case ChainCode::kNeg:
      return map(Neg());
    case ChainCode::kExp:
      return map(Exp());
    case ChainCode::kLog:
      return map(Log());
    case ChainCode::kSqrt:
      return map(Sqrt());
    case ChainCode::kRsqrt:
      return map(Rsqrt());
    case ChainCode::kReciprocal:
      return map(Reciprocal());
    case ChainCode::kSquare:
      return map(Square());
    case ChainCode::kAbs:
      return map(Abs());
    case ChainCode::kSign:
      return map(Sign());
    case ChainCode::kTanh:
      return map(Tanh());
    case ChainCode::kSigmoid:
      return map(Sigmoid());
    case ChainCode::kAffine:
      return map(Affine{{}, numbers[0], numbers[1]});
    case ChainCode::kClamp:
      return map(Clamp{{}, numbers[0], numbers[1]});
    case ChainCode::kRelu:
      return map(Relu());
    case ChainCode::kLeakyRelu:
      return map(LeakyRelu{{}, numbers[0]});
    default:
      return;
  }
}

/** `vectors` of V elements; layout.extent[0] counts vectors. */
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    chainKernel(const __grid_constant__ ChainProgram program, const __grid_constant__ ChainTensors tensors,
                const __grid_constant__ Layout<kChainInputs> layout, unsigned vectors) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector >= vectors) return;
  unsigned rest = vector / layout.extent[0], offset[kChainInputs];
#pragma unroll
  for (int k = 0; k < kChainInputs; ++k) offset[k] = (vector - rest * layout.extent[0]) * V * layout.stride[k][0];
#pragma unroll 1
  for (int axis = 1; axis < layout.axes; ++axis) {
    const unsigned next = rest / layout.extent[axis], place = rest - next * layout.extent[axis];
    rest = next;
#pragma unroll
    for (int k = 0; k < kChainInputs; ++k) offset[k] += place * layout.stride[k][axis];
  }

  float x[kChainInputs][V] = {};
#pragma unroll
  for (int k = 0; k < kChainInputs; ++k) {
    if (k >= tensors.count) continue;
    const bool repeats = layout.stride[k][0] == 0;
    if (tensors.wide[k])
      read(x[k], static_cast<const float*>(tensors.in[k]) + offset[k], repeats);
    else
      read(x[k], static_cast<const T*>(tensors.in[k]) + offset[k], repeats);
  }

  Stack<V> stack;
#pragma unroll 1
  for (int i = 0; i < program.steps; ++i) {
    const ChainProgram::Step step = program.step[i];
    if (step.code == ChainCode::kInput) {
      stack.push();
#pragma unroll
      for (int k = 0; k < kChainInputs; ++k) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const float value = opaque(x[k][v]);  // or else x becomes a table in local memory
          stack.at[0][v] = step.argument == k ? value : stack.at[0][v];
        }
      }
      continue;
    }
    if (step.code == ChainCode::kNumber) {
      stack.push();
      stack.unary([&](float) { return program.numbers[step.argument]; });
    } else {
      run(step.code, stack, program.numbers + step.argument);
    }
    if (program.rounds) stack.unary([](float v) { return toFloat(fromFloat<T>(v)); });
  }
  const size_t at = static_cast<size_t>(vector) * V;
  if (tensors.yWide)
    write(static_cast<float*>(tensors.y) + at, stack.at[0]);
  else
    write(static_cast<T*>(tensors.y) + at, stack.at[0]);
}

}  // namespace

template <class T>
cudaError_t chain(const ChainProgram& program, const ChainTensors& tensors, const Layout<kChainInputs>& layout,
                  cudaStream_t stream) {
  unsigned count = 1;
  for (int axis = 0; axis < layout.axes; ++axis) count *= layout.extent[axis];
  const auto run = [&](auto width) {
    constexpr unsigned kWidth = decltype(width)::value;
    Layout<kChainInputs> rows = layout;
    rows.extent[0] /= kWidth;
    const unsigned vectors = count / kWidth;
    return launch<chainKernel<T, kWidth>>({(vectors + kThreads - 1) / kThreads, kThreads, 0, stream}, program, tensors,
                                          rows, vectors);
  };
  return layout.extent[0] % kPack<T> == 0 ? run(std::integral_constant<int, kPack<T>>())
                                          : run(std::integral_constant<int, 1>());
}

#define REFL_CHAIN(T) \
  template cudaError_t chain<T>(const ChainProgram&, const ChainTensors&, const Layout<kChainInputs>&, cudaStream_t);
REFL_CHAIN(float)
REFL_CHAIN(bf16)
REFL_CHAIN(f16)

}  // namespace refl::cuda
