// What a product does to each element before it is written: a few steps, told at run time.
#pragma once
#include "simt/types.h"

namespace refl::cuda {

/** v becomes ... of v, the step's numbers a and b, and the element x of its operand at the same place. */
enum class EpilogueCode : uint8_t {
  kAdd,            // v + a x
  kMul,            // v x
  kAffine,         // a v + b
  kRelu,           // v, or 0 where it is negative
  kLeakyRelu,      // v, or a v
  kLeakyReluGrad,  // v where x is positive, a v elsewhere
  kGated,          // v sigmoid(a v)
  kGatedGrad,      // v times its slope at x
  kGelu,           // v Phi(v), Phi being the normal distribution function
  kGeluGrad,       // v times its slope at x
};

constexpr int kEpilogueSteps = 4;

/** Steps that follow a product and its bias, in turn, each in float32 and rounded to the product's type. */
struct Epilogue {
  struct Step {
    EpilogueCode code;
    int every;            // rows of the result, counted over a batch, that share a row of the operand
    const void* operand;  // [rows / every, columns] without gaps, or null
    float a, b;
  } step[kEpilogueSteps];
  int steps;
  bool toFloat;  // the result is written as float, whatever the product's type

  SIMT_BOTH bool any() const { return steps > 0 || toFloat; }
};

/** Whether 4 elements of rows of `columns` can be accessed at once in all operands, and in c, of T or of float, whose
 * rows and matrices begin at multiples of `strides` (or-ed). */
template <class T>
bool quadsFit(const Epilogue& epilogue, const T* c, int columns, int64_t strides) {
  const auto aligned = [](const void* at, size_t width) { return reinterpret_cast<uintptr_t>(at) % (4 * width) == 0; };
  bool fit = (columns | strides) % 4 == 0 && aligned(c, epilogue.toFloat ? sizeof(float) : sizeof(T));
  for (int i = 0; i < epilogue.steps; ++i) fit = fit && aligned(epilogue.step[i].operand, sizeof(T));
  return fit;
}

}  // namespace refl::cuda
