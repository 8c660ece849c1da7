// What cuDNN offers for a convolution: plans that run it.
#pragma once

#include <algorithm>

#include "engine/backend/cuda/convolution_graph.h"

namespace qtrain::cuda {

// Where the operands lie on the device. Which one is written depends on the problem's kind.
struct ConvolutionPointers {
  void* x = nullptr;
  void* w = nullptr;
  void* y = nullptr;
  void* bias = nullptr;
};

// One of cuDNN's implementations and what it does to numbers.
struct ConvolutionEngine {
  std::int64_t index = 0;
  std::vector<cudnnBackendNumericalNote_t> notes;

  bool has(cudnnBackendNumericalNote_t note) const;
  // Deterministic, and with the arithmetic that the problem asks for.
  bool keeps_to(const ConvolutionProblem& problem) const;
  std::string str() const;  // "engine 38 on tensor cores"
};

// An engine with its settings, ready to run.
class ConvolutionPlan {
 public:
  // `config` is one of the engine configurations that cuDNN's heuristics return. Throws cudnn::Declined.
  ConvolutionPlan(const cudnn::Target& target, ConvolutionEngine engine, cudnn::Descriptor config);

  std::size_t workspace_bytes() const { return workspace_bytes_; }
  std::string str() const;  // "engine 38 on tensor cores, 1048576 bytes of workspace", for messages

  void execute(const cudnn::Handle& handle, const ConvolutionProblem& problem,
               const ConvolutionPointers& pointers, void* workspace) const;

 private:
  ConvolutionEngine engine_;
  cudnn::Descriptor config_;
  cudnn::Descriptor plan_;
  std::size_t workspace_bytes_ = 0;
};

// Which plans are wanted.
struct PlanLimits {
  std::size_t plans;
  std::size_t workspace_bytes;
};

// Temporary memory that a convolution may take on a GPU with so much memory. The float32 engines of cuDNN
// rearrange images, so that they want as much as their operands: 4 GB for the stem of a ResNet with 1024
// images.
constexpr std::size_t most_workspace(std::size_t device_bytes) {
  return std::max(std::size_t{1} << 30, device_bytes / 32);
}

// The first plans within the limits that keep to the problem's arithmetic, in the order of cuDNN's
// expectations. `reason` says what happened to the last of the others.
std::vector<ConvolutionPlan> convolution_plans(const cudnn::Target& target, const ConvolutionGraph& graph,
                                               const ConvolutionProblem& problem, const PlanLimits& limits,
                                               std::string& reason);

}  // namespace qtrain::cuda
