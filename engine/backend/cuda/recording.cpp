// What step_graph.h records, as CUDA graphs. Their temporary memory is the common one: StepGraph says who may
// hold what meanwhile.
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/graph.h"

namespace qtrain {
namespace {

class RecordedGraph final : public DeviceGraph {
 public:
  explicit RecordedGraph(cuda::CudaGraph graph) : executable_(std::move(graph)) {}
  void launch(const Stream& stream) override { executable_.launch(stream); }

 private:
  cuda::CudaGraphExec executable_;
};

class Recording final : public GraphRecording {
 public:
  explicit Recording(const Stream& stream) : capture_(stream) {}
  std::unique_ptr<DeviceGraph> finish() override {
    return std::make_unique<RecordedGraph>(capture_.finish());
  }

 private:
  cuda::CudaGraphCapture capture_;
};

}  // namespace

std::unique_ptr<GraphRecording> CudaBackend::record_graph(const Stream& stream) {
  return std::make_unique<Recording>(stream);
}

}  // namespace qtrain
