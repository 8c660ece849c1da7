// A convolution's problem as an operation graph of cuDNN.
#pragma once

#include "engine/backend/cuda/convolution_problem.h"
#include "engine/backend/cuda/cudnn.h"

namespace qtrain::cuda {

// Names of the operands, by which a plan gets their addresses.
enum Operand : std::int64_t { operand_x = 1, operand_w, operand_y, operand_bias, operand_sum };

// The problem in cuDNN's terms. Throws cudnn::Declined.
class ConvolutionGraph {
 public:
  ConvolutionGraph(const cudnn::Target& target, const ConvolutionProblem& problem);
  const cudnn::Descriptor& descriptor() const { return graph_; }

 private:
  std::vector<cudnn::Descriptor> parts_;  // alive as long as what refers to them
  cudnn::Descriptor graph_;
};

}  // namespace qtrain::cuda
