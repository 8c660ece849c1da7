#include "engine/backend/cuda/graph.h"

#include "engine/backend/cuda/runtime.h"
#include "engine/core/error.h"

namespace qtrain::cuda {
namespace {

thread_local CudaGraphCapture* recording_of_this_thread = nullptr;

}  // namespace

void CudaGraph::Destroy::operator()(CUgraph_st* graph) const {
  cudaGraphDestroy(graph);
}

std::size_t CudaGraph::nodes() const {
  std::size_t count = 0;
  check(cudaGraphGetNodes(graph_.get(), nullptr, &count), "cudaGraphGetNodes");
  return count;
}

// Relaxed: the libraries may load kernels and ask for memory of their own the first time they run. What would
// spoil the recording, waiting, is refused by name.
CudaGraphCapture::CudaGraphCapture(const Stream& stream) : stream_(stream) {
  if (recording_of_this_thread != nullptr)
    throw DeviceError({.where = "cuda graph",
                       .what = "this thread is recording already",
                       .got = stream.device.str(),
                       .expected = "one recording at a time",
                       .hint = ""});
  check(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  recording_ = true;
  recording_of_this_thread = this;
}

CudaGraphCapture::~CudaGraphCapture() {
  if (!recording_) return;
  recording_of_this_thread = nullptr;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(native(stream_), &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // an error is on its way already
}

CudaGraph CudaGraphCapture::finish() {
  recording_ = false;
  recording_of_this_thread = nullptr;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(native(stream_), &graph), "cudaStreamEndCapture");
  graph_.graph_.reset(graph);
  return std::move(graph_);
}

CudaGraphCapture* CudaGraphCapture::current() {
  return recording_of_this_thread;
}

const PinnedBuffer& CudaGraphCapture::keep(PinnedBuffer buffer) {
  return graph_.constants_.emplace_back(std::move(buffer));
}

void refuse_while_recording(std::string_view what) {
  if (recording_of_this_thread == nullptr) return;
  throw DeviceError({.where = "cuda graph",
                     .what = std::string(what) + " can't be part of a recording",
                     .got = "",
                     .expected = "",
                     .hint = "run the same step once or twice before it is recorded"});
}

void CudaGraphExec::Destroy::operator()(CUgraphExec_st* executable) const {
  cudaGraphExecDestroy(executable);
}

CudaGraphExec::CudaGraphExec(CudaGraph graph) : graph_(std::move(graph)) {
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, graph_.graph_.get(), 0), "cudaGraphInstantiate");
  executable_.reset(executable);
}

void CudaGraphExec::launch(const Stream& stream) const {
  check(cudaGraphLaunch(executable_.get(), native(stream)), "cudaGraphLaunch");
  for (const PinnedBuffer& constant : graph_.constants_) constant.mark_copied(stream);
}

}  // namespace qtrain::cuda
