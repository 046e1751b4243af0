#include "exec/program.h"

#include <algorithm>
#include <cstring>

#include "exec/status.h"

namespace refl {

namespace {

[[noreturn]] void refuse(const std::string& why) { throw Error("ERR_PROGRAM", "the program is not valid: " + why); }

bool contains(const std::vector<const char*>& names, const char* name) {
  return std::any_of(names.begin(), names.end(), [name](const char* n) { return std::strcmp(n, name) == 0; });
}

}  // namespace

void Program::verifyTensor(const TensorDecl& t) const {
  const int64_t bytes = checkedBytes(t.dtype, t.shape);
  if ((t.offset < 0) == (t.slot < 0)) refuse("a tensor needs either an offset or a slot");
  if (t.slot < 0) {
    if (t.offset % 128 != 0 || t.offset > decl_.arenaBytes - bytes) refuse("a tensor outside of the arena");
    return;
  }
  if (t.slot >= static_cast<int64_t>(buffers_.size())) refuse("a tensor in an unknown buffer");
  const Buffer& buffer = *buffers_[static_cast<size_t>(t.slot)];
  if (buffer.dtype != t.dtype || static_cast<int64_t>(buffer.bytes()) != bytes) {
    refuse("a buffer " + describe(buffer.dtype, buffer.shape) + " bound as " + describe(t.dtype, t.shape));
  }
}

void Program::verifyNode(const NodeDecl& node, bool update) const {
  const OpInfo* op = findOp(node.op);
  if (!op) refuse("unknown operator " + node.op);
  const auto inputs = node.inputs.size(), fixed = op->inputs.size(), group = op->group.size();
  if (inputs < fixed || (group ? (inputs - fixed) % group != 0 : inputs != fixed)) {
    refuse(node.op + " with " + std::to_string(inputs) + " inputs");
  }
  if (node.outputs.size() != op->outputs.size()) refuse(node.op + " with the wrong number of outputs");
  if (node.attrs.size() != op->attrs.size()) refuse(node.op + " with the wrong number of attributes");
  // An update before the first one could be cut off from the rest by an abort.
  if (op->writes.empty() == update) refuse(node.op + (update ? " among the updates" : " before the updates"));
  const auto count = static_cast<int64_t>(decl_.tensors.size());
  for (size_t i = 0; i < inputs; i++) {
    const bool optional = i < fixed && std::strchr(op->inputs[i], '?');
    if (node.inputs[i] < (optional ? -1 : 0) || node.inputs[i] >= count) refuse(node.op + " reads an unknown tensor");
    if (i < fixed || !contains(op->writes, op->group[(i - fixed) % group])) continue;
    const Operand target = operand(node.inputs[i]);
    if (!target.buffer || target.frozen) {
      refuse(node.op + " writes " + describe(target.dtype, target.shape) +
             (target.buffer ? ", a frozen" : ", which is no") + " parameter");
    }
  }
  for (int64_t t : node.outputs) {
    if (t < 0 || t >= count) refuse(node.op + " writes an unknown tensor");
    if (decl_.tensors[static_cast<size_t>(t)].offset < 0) refuse(node.op + " writes a persistent buffer as its output");
  }
}

void Program::verify() const {
  if (decl_.arenaBytes < 0) refuse("a negative arena");
  for (const TensorDecl& t : decl_.tensors) verifyTensor(t);
  const auto count = static_cast<int64_t>(decl_.nodes.size());
  if (decl_.firstUpdate < 0 || decl_.firstUpdate > count) refuse("updates out of range");
  for (int64_t i = 0; i < count; i++) verifyNode(decl_.nodes[static_cast<size_t>(i)], i >= decl_.firstUpdate);
  int64_t previous = -1;
  for (int64_t start : decl_.segments) {
    if (start <= previous || start >= count) refuse("segments out of order");
    previous = start;
  }
  if (count > 0 && (decl_.segments.empty() || decl_.segments[0] != 0)) refuse("nodes outside of every segment");
  for (const auto* ports : {&decl_.feeds, &decl_.outputs}) {
    for (const Port& port : *ports) {
      if (port.tensor < 0 || port.tensor >= static_cast<int64_t>(decl_.tensors.size()))
        refuse("an unknown port " + port.name);
    }
  }
  int64_t earliest = 0;
  for (const Tap& tap : decl_.taps) {
    const bool boundary =
        tap.before == count || std::binary_search(decl_.segments.begin(), decl_.segments.end(), tap.before);
    if (tap.tensor < 0 || tap.tensor >= static_cast<int64_t>(decl_.tensors.size())) refuse("an unknown tap");
    if (!boundary || tap.before < earliest || tap.before > decl_.firstUpdate) refuse("a tap out of order");
    earliest = tap.before;
  }
  for (const Port& feed : decl_.feeds) {
    if (tensor(feed).offset < 0) refuse("a feed outside of the arena");
  }
}

size_t Program::slotOf(int64_t index) const {
  return static_cast<size_t>(decl_.tensors[static_cast<size_t>(index)].slot);
}

Operand Program::operand(int64_t index) const {
  if (index < 0) return {};
  const TensorDecl& t = decl_.tensors[static_cast<size_t>(index)];
  Buffer* buffer = t.slot < 0 ? nullptr : buffers_[static_cast<size_t>(t.slot)].get();
  return {t.dtype, t.shape, true, buffer, buffer && buffer->frozen};
}

Tensor Program::resolve(int64_t index) const {
  if (index < 0) return {};
  const TensorDecl& t = decl_.tensors[static_cast<size_t>(index)];
  std::byte* base = t.slot < 0 ? arena_.get() + t.offset : bytes_[static_cast<size_t>(t.slot)].get();
  return {base, t.dtype, t.shape};
}

Program::Program(ProgramDecl decl, std::vector<std::shared_ptr<Buffer>> buffers, std::shared_ptr<Backend> backend)
    : decl_(std::move(decl)),
      backend_(std::move(backend)),
      buffers_(std::move(buffers)),
      plain_(buffers_.size()),
      bytes_(buffers_.size()) {
  verify();
  recordings_.resize(decl_.segments.size());
  // What a kernel refuses is refused before there is memory for it.
  for (const NodeDecl& node : decl_.nodes) {
    NodeSpec spec;
    spec.op = findOp(node.op);
    spec.layer = node.layer;
    spec.attrs = node.attrs;
    Step step;
    for (int64_t t : node.inputs) spec.inputs.push_back(operand(t));
    for (int64_t t : node.outputs) spec.outputs.push_back(operand(t));
    step.bound = backend_->bind(spec);
    const auto& packed = step.bound.packed;
    for (size_t i = 0; i < node.inputs.size(); i++) {
      const bool plain = std::none_of(packed.begin(), packed.end(), [i](const PackedInput& p) { return p.input == i; });
      if (spec.inputs[i].buffer && plain) plain_[slotOf(node.inputs[i])] = true;
    }
    scratchBytes_ = std::max(scratchBytes_, step.bound.scratch);
    steps_.push_back(std::move(step));
  }
  const auto needPlain = [this](int64_t t) {
    if (decl_.tensors[static_cast<size_t>(t)].slot >= 0) plain_[slotOf(t)] = true;
  };
  for (const Port& port : decl_.outputs) needPlain(port.tensor);
  for (const Tap& tap : decl_.taps) needPlain(tap.tensor);
  arena_ = backend_->allocate(static_cast<size_t>(decl_.arenaBytes), "the program's tensors");
  scratch_ = backend_->allocate(scratchBytes_, "the program's scratch space");
  for (size_t i = 0; i < steps_.size(); i++)
    for (int64_t t : decl_.nodes[i].outputs) steps_[i].out.push_back(resolve(t));
}

// All at the first run's begin: a file that cannot be read must not stop a run among its updates.
void Program::hold() {
  if (held_) return;
  for (size_t slot = 0; slot < buffers_.size(); slot++) {
    if (plain_[slot]) bytes_[slot] = buffers_[slot]->plain();
  }
  for (size_t i = 0; i < steps_.size(); i++) {
    std::vector<Tensor> in;
    for (int64_t t : decl_.nodes[i].inputs) in.push_back(resolve(t));
    steps_[i].in = std::move(in);
  }
  held_ = true;
}

size_t Program::persistentBytes() const {
  std::map<const void*, size_t> held;
  for (size_t slot = 0; slot < buffers_.size(); slot++) {
    if (plain_[slot]) held[buffers_[slot].get()] = buffers_[slot]->bytes();
  }
  for (const Step& step : steps_) {
    for (const PackedInput& p : step.bound.packed) {
      if (p.pack) held[p.pack.get()] = p.pack->bytes;
    }
  }
  size_t sum = 0;
  for (const auto& [what, bytes] : held) sum += bytes;
  return sum;
}

std::vector<std::byte> Program::copyOf(int64_t index) const {
  const Tensor t = resolve(index);
  std::vector<std::byte> copy(t.bytes());
  backend_->download(copy.data(), t.as<const std::byte>(), copy.size());
  return copy;
}

void Program::prepare() {
  bool stale = false;
  for (const Step& step : steps_) stale |= step.bound.prepare && step.bound.prepare();
  if (stale) std::fill(recordings_.begin(), recordings_.end(), nullptr);
}

void Program::runNodes(size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const Step& step = steps_[i];
    step.bound.run({step.in.data(), step.out.data(), scratch_.get()});
  }
}

void Program::run(std::vector<std::shared_ptr<const Feed>> feeds, std::vector<std::vector<std::byte>>& outputs,
                  const Between& between, const Tapped& tapped) {
  for (size_t i = 0; i < feeds.size(); i++) {
    const TensorDecl& t = tensor(decl_.feeds[i]);
    const size_t bytes = static_cast<size_t>(sizeOf(t.shape)) * bytesOf(t.dtype);
    if (feeds[i]->size() != bytes) throw Error("ERR_FEED", decl_.feeds[i].name + " has the wrong number of bytes");
    backend_->upload(arena_.get() + t.offset, feeds[i]->data(), bytes);
    feeds[i] = nullptr;
  }
  hold();
  prepare();
  size_t tap = 0;
  const auto handOut = [&](size_t before) {
    for (; tapped && tap < decl_.taps.size() && decl_.taps[tap].before == static_cast<int64_t>(before); tap++)
      tapped(tap, copyOf(decl_.taps[tap].tensor));
  };
  for (size_t segment = 0; segment < decl_.segments.size(); segment++) {
    const auto first = static_cast<size_t>(decl_.segments[segment]);
    const size_t last =
        segment + 1 < decl_.segments.size() ? static_cast<size_t>(decl_.segments[segment + 1]) : steps_.size();
    handOut(first);
    // Asked before the first update too; from then on the run goes to its end, so no update is left half done.
    if (static_cast<int64_t>(first) <= decl_.firstUpdate &&
        !between(static_cast<double>(first) / static_cast<double>(steps_.size()))) {
      throw Error("ERR_ABORTED", "the run was aborted");
    }
    backend_->run(recordings_[segment], [&] { runNodes(first, last); });
  }
  handOut(steps_.size());
  backend_->wait();
  outputs.clear();
  for (const Port& port : decl_.outputs) outputs.push_back(copyOf(port.tensor));
}

}  // namespace refl
