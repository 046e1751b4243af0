#pragma once
// A flat program, as JavaScript wrote it, verified and bound to kernels and buffers.
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "exec/backend.h"
#include "exec/feed.h"

namespace refl {

struct TensorDecl {
  DType dtype = DType::f32;
  Shape shape;
  int64_t offset = -1;  // byte offset in the arena, or -1
  int64_t slot = -1;    // persistent buffer, or -1
};

struct NodeDecl {
  std::string op, layer;
  std::vector<int64_t> inputs, outputs;  // tensor indices; -1 is an input left out
  std::vector<std::vector<double>> attrs;
};

struct Port {
  std::string name;
  int64_t tensor = 0;
};

// A tensor that a run hands out on its way, before node `before` runs: a segment's first, or behind the last.
struct Tap {
  int64_t tensor = 0, before = 0;
};

struct ProgramDecl {
  std::vector<TensorDecl> tensors;
  std::vector<NodeDecl> nodes;
  std::vector<Port> feeds, outputs;
  std::vector<Tap> taps;  // in the order in which they are handed out
  std::vector<int64_t> segments;
  int64_t arenaBytes = 0, firstUpdate = 0;
};

// Called between segments with the fraction done; returning false aborts (throws ERR_ABORTED). Not asked again once
// updates have begun.
using Between = std::function<bool(double)>;

// Called between segments with the number of a tap and a copy of its bytes. Empty where nobody listens.
using Tapped = std::function<void(size_t, std::vector<std::byte>)>;

class Program {
 public:
  // Verifies the declaration, allocates the arena and binds the kernels. What verification guarantees, whatever was
  // declared: every tensor lies inside the arena or fills its buffer, every index and count fits, and only updates
  // write buffers, never frozen ones. That the shapes and attributes of one node fit each other is the work of
  // lib/graph's shape rules, and kernels rely on it; that no two live tensors share bytes is the planner's. Throws
  // ERR_PROGRAM, ERR_SHAPE, ERR_OUT_OF_MEMORY, or what a kernel's binder throws.
  Program(ProgramDecl decl, std::vector<std::shared_ptr<Buffer>> buffers, std::shared_ptr<Backend> backend);

  const std::vector<Port>& feeds() const { return decl_.feeds; }
  const std::vector<Port>& outputs() const { return decl_.outputs; }
  const TensorDecl& tensor(const Port& port) const { return decl_.tensors[static_cast<size_t>(port.tensor)]; }

  // Runs on the caller's thread: copies feeds in and lets go of them, runs all nodes, copies outputs out.
  void run(std::vector<std::shared_ptr<const Feed>> feeds, std::vector<std::vector<std::byte>>& outputs,
           const Between& between, const Tapped& tapped);

  // What this program's runs hold of persistent buffers: plain bytes and packed copies, each shared with other
  // programs.
  size_t persistentBytes() const;
  // Arena plus scratch: what a run needs beyond those.
  size_t transientBytes() const { return static_cast<size_t>(decl_.arenaBytes) + scratchBytes_; }

 private:
  void verify() const;
  void verifyTensor(const TensorDecl& t) const;
  void verifyNode(const NodeDecl& node, bool update) const;
  size_t slotOf(int64_t index) const;
  Operand operand(int64_t index) const;
  Tensor resolve(int64_t index) const;
  void hold();
  void prepare();
  void runNodes(size_t first, size_t last);
  std::vector<std::byte> copyOf(int64_t index) const;

  struct Step {
    Bound bound;
    std::vector<Tensor> in, out;
  };

  ProgramDecl decl_;
  std::shared_ptr<Backend> backend_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  std::vector<bool> plain_;                        // slots whose plain bytes a kernel or an output reads or writes
  std::vector<std::shared_ptr<std::byte>> bytes_;  // those bytes, from the first run on
  bool held_ = false;
  std::vector<Step> steps_;
  std::vector<std::shared_ptr<void>> recordings_;  // one a segment
  std::shared_ptr<std::byte> arena_, scratch_;
  size_t scratchBytes_ = 0;
};

}  // namespace refl
