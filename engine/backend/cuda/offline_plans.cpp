#include "engine/backend/cuda/offline_plans.h"

#include "engine/backend/cuda/convolution_plan.h"

namespace qtrain::cuda {

OfflinePlans offline_convolution_plans(const std::string& gpu, const ConvolutionProblem& problem,
                                       std::size_t most, std::size_t device_bytes) {
  OfflinePlans result;
  try {
    const cudnn::Descriptor description = cudnn::described_device(gpu);
    result.understood = true;
    const cudnn::Target target{.description = &description};
    const ConvolutionGraph graph(target, problem);
    const PlanLimits limits{.plans = most, .workspace_bytes = most_workspace(device_bytes)};
    for (const ConvolutionPlan& plan : convolution_plans(target, graph, problem, limits, result.reason))
      result.plans.push_back(plan.str());
  } catch (const cudnn::Declined& declined) {
    result.reason = declined.what();
  }
  return result;
}

}  // namespace qtrain::cuda
