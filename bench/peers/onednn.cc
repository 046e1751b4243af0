// oneDNN 2.x called directly, float32: what our kernels are held against. Requests:
//
//   conv PASS N HEIGHT WIDTH INPUTS OUTPUTS KERNEL STRIDE WEIGHTS VARIANT COPIES
//   linear PASS ROWS INPUTS OUTPUTS WEIGHTS VARIANT COPIES
//   clear
//
// PASS is forward, input or weight (the two gradients); WEIGHTS frozen or trainable. A job starts and ends where ours
// does: NHWC images, OIHW or [out, in] weights. Reorders of images are part of it in whatever layout oneDNN prefers;
// packing the weights is too, unless they are frozen. VARIANT is how oneDNN may do it:
//
//   conv    any       formats of its choice          nhwc  images stay as they are, weights of its choice
//           winograd  formats of its choice
//   linear  any       weights (for the gradient by the weights: operands) of its choice
//           plain     everything stays as it is      inner the inner product primitive, formats of its choice
//
// The answer holds the seconds of one of COPIES runs, the implementation's name, and the first and last number of the
// result.
#include <dnnl.hpp>
#include <map>
#include <unordered_map>
#include <vector>

#include "requests.h"

#if DNNL_VERSION_MAJOR != 2
#error this peer is written for oneDNN 2.x, as Debian 12 has it
#endif

namespace {

using namespace dnnl;
using Tag = memory::format_tag;
using Dims = memory::dims;
using Arguments = std::unordered_map<int, memory>;

engine& cpu() {
  static engine instance(engine::kind::cpu, 0);
  return instance;
}

stream& queue() {
  static stream instance(cpu());
  return instance;
}

memory::desc describe(const Dims& dims, Tag tag) { return {dims, memory::data_type::f32, tag}; }

// One operation with the reorders around it, ready to run again and again.
class Job {
 public:
  std::string implementation;

  // Tensor number `number`, in the plain layout it has outside of the job.
  memory input(const memory::desc& plain, uint32_t number) {
    memory m(plain, cpu());
    auto* data = static_cast<float*>(m.get_data_handle());
    const auto count = static_cast<uint32_t>(plain.get_size() / sizeof(float));
#pragma omp parallel for
    for (uint32_t i = 0; i < count; i++) data[i] = valueAt(i, number);
    return m;
  }

  // `from` in the layout `wanted`: reordered at every run, or (`once`) now.
  memory arranged(memory from, const memory::desc& wanted, bool once = false) {
    if (from.get_desc() == wanted) return from;
    memory to(wanted, cpu());
    if (once) {
      reorder(from, to).execute(queue(), from, to);
      queue().wait();
    } else {
      add(reorder(from, to), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
    }
    return to;
  }

  // Holds memory that other memory is a view of.
  void keep(const memory& m) { kept_.push_back(m); }

  // Adds the operation, with its result put into the layout `plain`.
  template <class Desc>
  void finish(const Desc& desc, const primitive& operation, Arguments arguments, int output, const memory::desc& made,
              const memory::desc& plain) {
    implementation = desc.impl_info_str();
    memory to(made, cpu());
    arguments[output] = to;
    add(operation, arguments);
    result_ = arranged(to, plain);
  }

  void run() {
    for (const auto& [operation, arguments] : steps_) operation.execute(queue(), arguments);
    queue().wait();
  }

  float first() const { return data()[0]; }
  float last() const { return data()[result_.get_desc().get_size() / sizeof(float) - 1]; }

 private:
  void add(const primitive& operation, const Arguments& arguments) { steps_.emplace_back(operation, arguments); }
  const float* data() const { return static_cast<const float*>(result_.get_data_handle()); }

  std::vector<std::pair<primitive, Arguments>> steps_;
  std::vector<memory> kept_;
  memory result_;
};

enum class Pass { forward, input, weight };

Pass passOf(const std::string& name) {
  static const std::map<std::string, Pass> passes{
      {"forward", Pass::forward}, {"input", Pass::input}, {"weight", Pass::weight}};
  return passes.at(name);
}

Job convolution(Words& words) {
  const Pass pass = passOf(next<std::string>(words));
  const auto n = next<int64_t>(words), h = next<int64_t>(words), w = next<int64_t>(words);
  const auto inputs = next<int64_t>(words), outputs = next<int64_t>(words), kernel = next<int64_t>(words);
  const auto stride = next<int64_t>(words);
  const bool frozen = next<std::string>(words) == "frozen";
  const auto variant = next<std::string>(words);

  const Dims strides{stride, stride}, padding{kernel / 2, kernel / 2};
  const auto extent = [&](int64_t size) { return (size + 2 * (kernel / 2) - kernel) / stride + 1; };
  const Dims image{n, inputs, h, w}, made{n, outputs, extent(h), extent(w)}, weights{outputs, inputs, kernel, kernel};
  const auto x = describe(image, Tag::nhwc), y = describe(made, Tag::nhwc), plainWeights = describe(weights, Tag::oihw);
  const Tag imageTag = variant == "nhwc" ? Tag::nhwc : Tag::any;
  const auto anyX = describe(image, imageTag), anyY = describe(made, imageTag),
             anyWeights = describe(weights, Tag::any);
  const auto bias = describe({outputs}, Tag::a);
  const auto algorithm = variant == "winograd" ? algorithm::convolution_winograd : algorithm::convolution_direct;

  Job job;
  if (pass == Pass::forward) {
    const convolution_forward::primitive_desc pd(
        {prop_kind::forward_inference, algorithm, anyX, anyWeights, bias, anyY, strides, padding, padding}, cpu());
    const memory from = job.arranged(job.input(x, 0), pd.src_desc());
    const memory packed = job.arranged(job.input(plainWeights, 1), pd.weights_desc(), frozen);
    const Arguments arguments{{DNNL_ARG_SRC, from}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_BIAS, job.input(bias, 2)}};
    job.finish(pd, convolution_forward(pd), arguments, DNNL_ARG_DST, pd.dst_desc(), y);
    return job;
  }
  const convolution_forward::primitive_desc hint(
      {prop_kind::forward_training, algorithm, anyX, anyWeights, anyY, strides, padding, padding}, cpu());
  if (pass == Pass::input) {
    const convolution_backward_data::primitive_desc pd({algorithm, anyX, anyWeights, anyY, strides, padding, padding},
                                                       cpu(), hint);
    const memory dy = job.arranged(job.input(y, 0), pd.diff_dst_desc());
    const memory packed = job.arranged(job.input(plainWeights, 1), pd.weights_desc(), frozen);
    job.finish(pd, convolution_backward_data(pd), {{DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_WEIGHTS, packed}},
               DNNL_ARG_DIFF_SRC, pd.diff_src_desc(), x);
  } else {
    const convolution_backward_weights::primitive_desc pd(
        {algorithm, anyX, anyWeights, anyY, strides, padding, padding}, cpu(), hint);
    const memory from = job.arranged(job.input(x, 0), pd.src_desc());
    const memory dy = job.arranged(job.input(y, 1), pd.diff_dst_desc());
    job.finish(pd, convolution_backward_weights(pd), {{DNNL_ARG_SRC, from}, {DNNL_ARG_DIFF_DST, dy}},
               DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc(), plainWeights);
  }
  return job;
}

// a [m, k] times b [k, n], each given in a plain layout; `once` packs b now.
void product(Job& job, memory a, memory b, const memory::desc& c, bool anyA, bool anyB, bool once, memory bias = {}) {
  const auto loose = [](const memory& m, bool any) {
    return any ? describe(m.get_desc().dims(), Tag::any) : m.get_desc();
  };
  const matmul::primitive_desc pd(bias ? matmul::desc(loose(a, anyA), loose(b, anyB), bias.get_desc(), c)
                                       : matmul::desc(loose(a, anyA), loose(b, anyB), c),
                                  cpu());
  Arguments arguments{{DNNL_ARG_SRC, job.arranged(a, pd.src_desc())},
                      {DNNL_ARG_WEIGHTS, job.arranged(b, pd.weights_desc(), once)}};
  if (bias) arguments[DNNL_ARG_BIAS] = bias;
  job.finish(pd, matmul(pd), arguments, DNNL_ARG_DST, pd.dst_desc(), c);
}

Job linear(Words& words) {
  const Pass pass = passOf(next<std::string>(words));
  const auto rows = next<int64_t>(words), inputs = next<int64_t>(words), outputs = next<int64_t>(words);
  const bool frozen = next<std::string>(words) == "frozen";
  const auto variant = next<std::string>(words);
  const bool any = variant == "any";

  const auto x = describe({rows, inputs}, Tag::ab), y = describe({rows, outputs}, Tag::ab);
  const auto weight = describe({outputs, inputs}, Tag::ab), bias = describe({outputs}, Tag::a);
  const auto anyX = describe({rows, inputs}, Tag::any), anyY = describe({rows, outputs}, Tag::any);
  const auto anyWeight = describe({outputs, inputs}, Tag::any);
  Job job;
  // The same bytes seen as their transpose.
  const auto turned = [&](memory m) {
    job.keep(m);
    const Dims dims = m.get_desc().dims();
    return memory(describe({dims[1], dims[0]}, Tag::ba), cpu(), m.get_data_handle());
  };

  const memory one = job.input(pass == Pass::input ? y : x, 0), two = job.input(pass == Pass::weight ? y : weight, 1);
  if (variant != "inner") {
    if (pass == Pass::forward) {
      product(job, one, turned(two), y, false, any, frozen, job.input(describe({1, outputs}, Tag::ab), 2));
    } else if (pass == Pass::input) {
      product(job, one, two, x, false, any, frozen);
    } else {
      product(job, turned(two), one, weight, any, any, false);
    }
    return job;
  }
  const inner_product_forward::primitive_desc forward(
      {pass == Pass::forward ? prop_kind::forward_inference : prop_kind::forward_training, anyX, anyWeight, bias, anyY},
      cpu());
  if (pass == Pass::forward) {
    const Arguments arguments{{DNNL_ARG_SRC, job.arranged(one, forward.src_desc())},
                              {DNNL_ARG_WEIGHTS, job.arranged(two, forward.weights_desc(), frozen)},
                              {DNNL_ARG_BIAS, job.input(bias, 2)}};
    job.finish(forward, inner_product_forward(forward), arguments, DNNL_ARG_DST, forward.dst_desc(), y);
  } else if (pass == Pass::input) {
    const inner_product_backward_data::primitive_desc pd({anyX, anyWeight, anyY}, cpu(), forward);
    const Arguments arguments{{DNNL_ARG_DIFF_DST, job.arranged(one, pd.diff_dst_desc())},
                              {DNNL_ARG_WEIGHTS, job.arranged(two, pd.weights_desc(), frozen)}};
    job.finish(pd, inner_product_backward_data(pd), arguments, DNNL_ARG_DIFF_SRC, pd.diff_src_desc(), x);
  } else {
    const inner_product_backward_weights::primitive_desc pd({anyX, anyWeight, anyY}, cpu(), forward);
    const Arguments arguments{{DNNL_ARG_SRC, job.arranged(one, pd.src_desc())},
                              {DNNL_ARG_DIFF_DST, job.arranged(two, pd.diff_dst_desc())}};
    job.finish(pd, inner_product_backward_weights(pd), arguments, DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc(),
               weight);
  }
  return job;
}

std::string answer(Words& words) {
  // Jobs stay prepared, packed weights and all, while rounds of the same case go on.
  static std::map<std::string, Job> jobs;
  const auto what = next<std::string>(words);
  if (what == "clear") {
    jobs.clear();
    return "{}";
  }
  const std::string request = words.str().substr(0, words.str().rfind(' '));
  auto found = jobs.find(request);
  if (found == jobs.end()) {
    found = jobs.emplace(request, what == "conv" ? convolution(words) : linear(words)).first;
    found->second.run();
  }
  Job& job = found->second;
  Words last(words.str().substr(request.size()));
  const int copies = next<int>(last);
  const double seconds = secondsOf([&] {
    for (int i = 0; i < copies; i++) job.run();
  });
  std::ostringstream reply;
  reply << "{\"seconds\":" << seconds / copies << ",\"implementation\":\"" << job.implementation
        << "\",\"first\":" << job.first() << ",\"last\":" << job.last() << "}";
  return reply.str();
}

}  // namespace

int main() { return serve(answer); }
