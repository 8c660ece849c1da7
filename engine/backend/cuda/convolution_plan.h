// What cuDNN offers for a convolution: its problem as an operation graph, and plans that run it.
#pragma once

#include <optional>

#include "engine/backend/cuda/convolution_problem.h"
#include "engine/backend/cuda/cudnn.h"

namespace qtrain::cuda {

// Where the operands lie on the device. Which one is written depends on the problem's kind.
struct ConvolutionPointers {
  void* x = nullptr;
  void* w = nullptr;
  void* y = nullptr;
  void* bias = nullptr;
};

// The problem in cuDNN's terms. Throws cudnn::Declined.
class ConvolutionGraph {
 public:
  ConvolutionGraph(const cudnn::Handle& handle, const ConvolutionProblem& problem);
  const cudnn::Descriptor& descriptor() const { return graph_; }

 private:
  std::vector<cudnn::Descriptor> parts_;  // alive as long as what refers to them
  cudnn::Descriptor graph_;
};

// One implementation, ready to run.
class ConvolutionPlan {
 public:
  // `config` is one of the engine configurations that cuDNN's heuristics return. Throws cudnn::Declined.
  ConvolutionPlan(const cudnn::Handle& handle, cudnn::Descriptor config);

  std::size_t workspace_bytes() const { return workspace_bytes_; }
  std::string str() const;  // "engine 38, 1048576 bytes of workspace", for messages

  void execute(const cudnn::Handle& handle, const ConvolutionProblem& problem,
               const ConvolutionPointers& pointers, void* workspace) const;

 private:
  cudnn::Descriptor config_;
  cudnn::Descriptor plan_;
  std::int64_t engine_ = 0;
  std::size_t workspace_bytes_ = 0;
};

// The first `most` plans that keep to the problem's arithmetic, in the order of cuDNN's expectations;
// deterministic ones only. `reason` says what happened to the others.
std::vector<ConvolutionPlan> convolution_plans(const cudnn::Handle& handle, const ConvolutionGraph& graph,
                                               const ConvolutionProblem& problem, std::size_t most,
                                               std::string& reason);

}  // namespace qtrain::cuda
