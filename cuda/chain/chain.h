// Trees of elementwise operators in one pass over memory (lib/graph/fuse.ts). T: float, bf16 or f16.
#pragma once
#include "elementwise/elementwise.h"

namespace refl::cuda {

// lib/graph/fuse.ts keeps to these.
constexpr int kChainInputs = 6, kChainSteps = 24, kChainNumbers = 12, kChainDepth = 4;

/** What a step does: push an input or a number, or replace one or two values on top of the stack. */
enum class ChainCode : uint8_t {
  kInput,
  kNumber,
  kAdd,
  kSub,
  kMul,
  kDiv,
  kMaximum,
  kMinimum,
  kGreater,
  kGreaterEqual,
  kEqual,
  kClampGrad,
  kLeakyReluGrad,
  kNeg,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kReciprocal,
  kSquare,
  kAbs,
  kSign,
  kTanh,
  kSigmoid,
  kAffine,
  kClamp,
  kRelu,
  kLeakyRelu,
};

/** Steps in postfix order; `argument` counts inputs, or numbers: an operator's attributes begin there. */
struct ChainProgram {
  struct Step {
    ChainCode code;
    uint8_t argument;
  } step[kChainSteps];
  int steps;
  float numbers[kChainNumbers];
  bool rounds;  // each step's value to T, as it would be between nodes; no tensor is wide then
};

/** Inputs and result. Where it is `wide`, one of a chain of 16-bit floats is float. */
struct ChainTensors {
  const void* in[kChainInputs];
  bool wide[kChainInputs];
  int count;
  void* y;
  bool yWide;
};

/** y = the program's value for every element. The result may lie on an input of its size and type. */
template <class T>
cudaError_t chain(const ChainProgram& program, const ChainTensors& tensors, const Layout<kChainInputs>& layout,
                  cudaStream_t stream);

}  // namespace refl::cuda
