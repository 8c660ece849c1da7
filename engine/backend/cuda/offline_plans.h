// What cuDNN would do on a GPU that isn't in this machine. No vendor header and no driver is needed.
#pragma once

#include <string>
#include <vector>

#include "engine/backend/cuda/convolution_problem.h"

namespace qtrain::cuda {

struct OfflinePlans {
  bool understood = false;         // whether cuDNN took the description of the GPU
  std::vector<std::string> plans;  // in the order of its expectations, `most` at most
  std::string reason;              // why there aren't more
};

// `gpu`: cuDNN's own representation of a device, in JSON, with `device_bytes` of memory.
OfflinePlans offline_convolution_plans(const std::string& gpu, const ConvolutionProblem& problem,
                                       std::size_t most, std::size_t device_bytes = std::size_t{128} << 30);

}  // namespace qtrain::cuda
