// Which plan runs a convolution: chosen once for each problem, then kept.
#pragma once

#include <map>
#include <mutex>

#include "engine/backend/cuda/convolution_plan.h"

namespace qtrain::cuda {

class ConvolutionChoices {
 public:
  // On the stream of a GPU with so much memory.
  ConvolutionChoices(cudaStream_t stream, std::size_t device_bytes)
      : handle_(stream), most_workspace_(most_workspace(device_bytes)) {}

  // Queues the convolution; false where cuDNN has no plan for it: then nothing was queued. With `autotune`,
  // the first call for a problem measures the plans on these very operands and waits; not while a graph is
  // recorded, which takes what is known or expected to be good.
  bool run(const Stream& stream, const ConvolutionProblem& problem, const ConvolutionPointers& pointers,
           bool autotune);

  // A line for each problem so far: the problem, the plan or why there is none.
  std::vector<std::string> report() const;

 private:
  struct Choice {
    std::string problem;
    std::string reason;
    bool measured = false;
    std::unique_ptr<ConvolutionGraph> graph;  // the plan refers to it
    std::optional<ConvolutionPlan> plan;
  };
  void execute(const Stream& stream, const ConvolutionProblem& problem, const ConvolutionPointers& pointers,
               const ConvolutionPlan& plan) const;
  Choice choose(const Stream& stream, const ConvolutionProblem& problem, const ConvolutionPointers& pointers,
                bool measure) const;
  // Milliseconds; infinity for a plan that can't run after all.
  float measure(const Stream& stream, const ConvolutionProblem& problem, const ConvolutionPointers& pointers,
                const ConvolutionPlan& plan) const;

  mutable std::mutex mutex_;  // a handle serves one thread at a time
  cudnn::Handle handle_;
  std::size_t most_workspace_;
  // Never dropped: a recorded graph may hold kernels of any of these plans.
  std::map<std::vector<std::int64_t>, Choice> choices_;
  std::vector<Choice> replaced_;  // by measured ones
};

}  // namespace qtrain::cuda
