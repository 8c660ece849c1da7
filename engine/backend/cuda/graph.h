// Recorded work: everything that is queued on a stream between two points, run again with one call. Worth it
// where a step is hundreds of short kernels: the host needs longer to queue them than the GPU to run them.
//
// What is recorded holds addresses. Tensors that a graph reads and writes must live as long as it is
// launched. Its temporary memory is common memory, which every launch writes again: what was made after the
// recording holds nothing across a launch. So any number of graphs can share it, one stream running them in
// turn.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "engine/backend/cuda/pinned.h"
#include "engine/core/device.h"

// The CUDA runtime's types; its header stays inside engine/backend/cuda.
struct CUgraph_st;
struct CUgraphExec_st;

namespace qtrain::cuda {

class CudaGraph {
 public:
  std::size_t nodes() const;  // kernels, copies and fills

 private:
  friend class CudaGraphCapture;
  friend class CudaGraphExec;
  struct Destroy {
    void operator()(CUgraph_st* graph) const;
  };
  std::unique_ptr<CUgraph_st, Destroy> graph_;
  std::vector<PinnedBuffer> constants_;  // host values that its copies read
};

// Records what this thread queues on the stream while it lives. Until finish(), nothing can be waited for and
// nothing runs. Run the same work once or twice before: libraries choose and load their kernels then.
class CudaGraphCapture {
 public:
  explicit CudaGraphCapture(const Stream& stream);
  ~CudaGraphCapture();  // without finish(): forgets what was recorded
  CudaGraphCapture(const CudaGraphCapture&) = delete;
  CudaGraphCapture& operator=(const CudaGraphCapture&) = delete;

  CudaGraph finish();

  // The recording of this thread, or nullptr.
  static CudaGraphCapture* current();
  // Keeps a host value that a recorded copy reads at every launch.
  const PinnedBuffer& keep(PinnedBuffer buffer);

 private:
  Stream stream_;
  CudaGraph graph_;
  bool recording_ = false;
};

// Throws DeviceError while this thread records: what can't be part of a graph is refused before it spoils it.
void refuse_while_recording(std::string_view what);

class CudaGraphExec {
 public:
  explicit CudaGraphExec(CudaGraph graph);

  void launch(const Stream& stream) const;

 private:
  struct Destroy {
    void operator()(CUgraphExec_st* executable) const;
  };

  CudaGraph graph_;
  std::unique_ptr<CUgraphExec_st, Destroy> executable_;
};

}  // namespace qtrain::cuda
