// Binders of the convolutions. A kernel of one pixel that takes every pixel is a product of matrices, with the weight
// as it lies in all three directions.
#include "conv2d/conv2d.h"

#include <algorithm>

#include "gemm/bind_epilogue.h"
#include "gemm/gemm.h"

namespace refl::cuda {
namespace {

ConvShape shapeOf(const NodeSpec& node, const Shape& x, const Shape& y, int64_t kernelHeight, int64_t kernelWidth) {
  const auto stride = node.integers("stride"), padding = node.integers("padding");
  narrow(node, sizeOf(x));
  narrow(node, sizeOf(y));
  narrow(node, x[0] * x[1] * x[2]);
  narrow(node, y[0] * y[1] * y[2]);
  narrow(node, y[3] * x[3] * kernelHeight * kernelWidth);
  ConvShape s = {};
  s.images = narrow(node, x[0]);
  s.height = narrow(node, x[1]);
  s.width = narrow(node, x[2]);
  s.channels = narrow(node, x[3]);
  s.outHeight = narrow(node, y[1]);
  s.outWidth = narrow(node, y[2]);
  s.outputs = narrow(node, y[3]);
  s.kernelHeight = narrow(node, kernelHeight);
  s.kernelWidth = narrow(node, kernelWidth);
  // A stride beyond the padded image is never taken.
  const int64_t high = std::max<int64_t>(1, x[1] + padding[0] + padding[2]),
                wide = std::max<int64_t>(1, x[2] + padding[1] + padding[3]);
  narrow(node, 2 * high);
  narrow(node, 2 * wide);
  s.strideY = static_cast<int>(std::min(stride[0], high));
  s.strideX = static_cast<int>(std::min(stride[1], wide));
  s.top = narrow(node, padding[0]);
  s.left = narrow(node, padding[1]);
  s.tf32 = node.tf32;
  return s;
}

bool isProduct(const ConvShape& s) {
  return s.kernelHeight == 1 && s.kernelWidth == 1 && s.strideY == 1 && s.strideX == 1 && s.top == 0 && s.left == 0 &&
         s.outHeight == s.height && s.outWidth == s.width;
}

int pixelsOf(const ConvShape& s) { return s.images * s.outHeight * s.outWidth; }

template <class T>
Bound product(const GemmShape& shape, bool bias, const BoundEpilogue& epilogue) {
  const auto run = [=](const Args& a) {
    return gemm<T>(shape, a.in[0].as<const T>(), a.in[1].as<const T>(), bias ? a.in[2].as<const T>() : nullptr,
                   a.out[0].as<T>(), a.scratch, a.stream, epilogue.at(a));
  };
  return {run, gemmScratch<T>(shape)};
}

/** run(args, weight, scratch) with the weight packed by `pack`: once where it is frozen, and otherwise at every run,
 * into the scratch memory before `scratch` bytes of run's own. */
template <class T, class Pack, class Run>
Bound packing(const Operand& weight, const ConvShape& shape, const char* layout, const Pack& pack, size_t scratch,
              const Run& run) {
  const size_t bytes = static_cast<size_t>(weight.size()) * sizeof(T);
  if (weight.frozen) {
    std::string key = layout;
    for (const int64_t extent : weight.shape) key += " " + std::to_string(extent);
    const auto make = [=](const void* plain, std::byte* copy, cudaStream_t stream) {
      return pack(shape, static_cast<const T*>(plain), reinterpret_cast<T*>(copy), stream);
    };
    const auto packed = [=](const Args& a) { return run(a, reinterpret_cast<const T*>(a.packed[0]), a.scratch); };
    return {packed, scratch, {{1, key, bytes, make}}};
  }
  const size_t room = (bytes + 255) / 256 * 256;
  const auto each = [=](const Args& a) {
    T* copy = reinterpret_cast<T*>(a.scratch);
    const cudaError_t error = pack(shape, a.in[1].as<const T>(), copy, a.stream);
    return error == cudaSuccess ? run(a, copy, a.scratch + room) : error;
  };
  return {each, room + scratch};
}

/** The same with a weight that already lies as wanted. */
template <class T, class Run>
Bound plain(size_t scratch, const Run& run) {
  return {[=](const Args& a) { return run(a, a.in[1].as<const T>(), a.scratch); }, scratch};
}

}  // namespace

Bound bindConv2d(const NodeSpec& node) {
  const Operand &x = node.inputs[0], &weight = node.inputs[1], &y = node.outputs[0];
  const ConvShape s = shapeOf(node, x.shape, y.shape, weight.dim(2), weight.dim(3));
  const bool bias = node.inputs[2].present;
  const BoundEpilogue epilogue(node, 3);
  if (y.size() == 0) return nothing();
  return onFloat(x.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (isProduct(s)) {
      const int c = s.channels, o = s.outputs;
      return product<T>({1, pixelsOf(s), o, c, false, true, c, c, o, 0, 0, 0, s.tf32}, bias, epilogue);
    }
    const auto run = [=](const Args& a, const T* packed, std::byte* scratch) {
      return conv2dForward<T>(s, a.in[0].as<const T>(), packed, bias ? a.in[2].as<const T>() : nullptr,
                              a.out[0].as<T>(), scratch, a.stream, epilogue.at(a));
    };
    const size_t scratch = conv2dScratch<T>(s);
    if (s.channels <= 1 || s.kernelHeight * s.kernelWidth == 1) return plain<T>(scratch, run);
    return packing<T>(weight, s, "conv2d", packConvWeight<T>, scratch, run);
  });
}

Bound bindConv2dGradInput(const NodeSpec& node) {
  const Operand &dy = node.inputs[0], &weight = node.inputs[1], &dx = node.outputs[0];
  const ConvShape s = shapeOf(node, dx.shape, dy.shape, weight.dim(2), weight.dim(3));
  const BoundEpilogue epilogue(node, 2);
  if (dx.size() == 0) return nothing();
  return onFloat(dy.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (isProduct(s)) {
      const int c = s.channels, o = s.outputs;
      return product<T>({1, pixelsOf(s), c, o, false, false, o, c, c, 0, 0, 0, s.tf32}, false, epilogue);
    }
    const auto run = [=](const Args& a, const T* packed, std::byte* scratch) {
      return conv2dGradInput<T>(s, a.in[0].as<const T>(), packed, a.out[0].as<T>(), scratch, a.stream, epilogue.at(a));
    };
    const size_t scratch = conv2dGradInputScratch<T>(s);
    if (s.outputs <= 1) return plain<T>(scratch, run);
    return packing<T>(weight, s, "conv2dGradInput", packConvWeightForGradInput<T>, scratch, run);
  });
}

Bound bindConv2dGradWeight(const NodeSpec& node) {
  const Operand &x = node.inputs[0], &dy = node.inputs[1], &dw = node.outputs[0];
  const auto kernel = node.integers("kernel");
  const ConvShape s = shapeOf(node, x.shape, dy.shape, kernel[0], kernel[1]);
  if (dw.size() == 0) return nothing();
  Epilogue epilogue = {};
  epilogue.toFloat = dw.dtype == DType::f32 && x.dtype != DType::f32;
  if (dw.dtype != x.dtype && !epilogue.toFloat) refuse(node, "ERR_DTYPE", "mixes dtypes");
  return onFloat(x.dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    if (isProduct(s)) {
      const int c = s.channels, o = s.outputs;
      const GemmShape shape = {1, o, c, pixelsOf(s), true, false, o, c, c, 0, 0, 0, s.tf32};
      const auto run = [=](const Args& a) {  // dy is the left operand
        return gemm<T>(shape, a.in[1].as<const T>(), a.in[0].as<const T>(), nullptr, a.out[0].as<T>(), a.scratch,
                       a.stream, epilogue);
      };
      return {run, gemmScratch<T>(shape)};
    }
    const auto run = [=](const Args& a) {
      return conv2dGradWeight<T>(s, a.in[0].as<const T>(), a.in[1].as<const T>(), a.out[0].as<T>(), a.scratch, a.stream,
                                 epilogue.toFloat);
    };
    return {run, conv2dGradWeightScratch<T>(s)};
  });
}

}  // namespace refl::cuda
