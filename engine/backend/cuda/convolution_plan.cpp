#include "engine/backend/cuda/convolution_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace qtrain::cuda {
namespace {

using cudnn::Descriptor;

std::vector<Descriptor> proposals(const cudnn::Target& target, const ConvolutionGraph& graph,
                                  cudnnBackendHeurMode_t mode) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.descriptor());
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
  if (target.description != nullptr) heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.description);
  heuristics.finalize();
  return heuristics.get_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
}

ConvolutionEngine engine_of(const Descriptor& config) {
  const Descriptor engine =
      config.get_descriptor(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  return {engine.get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX),
          engine.get_all<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                      CUDNN_NUMERICAL_NOTE_TYPE_COUNT)};
}

}  // namespace

bool ConvolutionEngine::has(cudnnBackendNumericalNote_t note) const {
  return std::ranges::find(notes, note) != notes.end();
}

bool ConvolutionEngine::keeps_to(const ConvolutionProblem& problem) const {
  if (has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) return false;
  if (has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)) return false;          // inputs as float16
  if (has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) return false;  // sums below float32
  // Transforms whose rounding errors exceed those of a plain sum; small Winograd tiles are near it.
  if (has(CUDNN_NUMERICAL_NOTE_FFT) || has(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6) ||
      has(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13))
    return false;
  // Tensor cores take float32 numbers as tf32.
  const bool exact_float32 = problem.multiplies_float32() && problem.math == MathMode::fp32;
  return !(exact_float32 && has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE));
}

std::string ConvolutionEngine::str() const {
  return fmt::format("engine {}{}{}", index, has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) ? " on tensor cores" : "",
                     has(CUDNN_NUMERICAL_NOTE_WINOGRAD) ? " by Winograd" : "");
}

ConvolutionPlan::ConvolutionPlan(const cudnn::Target& target, ConvolutionEngine engine, Descriptor config)
    : engine_(std::move(engine)), config_(std::move(config)), plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
  if (target.handle != nullptr)
    plan_.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, target.handle->get());
  else
    plan_.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target.description);
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config_);
  plan_.finalize();
  const auto bytes = plan_.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
  workspace_bytes_ = static_cast<std::size_t>(std::max<std::int64_t>(bytes, 0));
}

std::string ConvolutionPlan::str() const {
  return fmt::format("{}, {} bytes of workspace", engine_.str(), workspace_bytes_);
}

void ConvolutionPlan::execute(const cudnn::Handle& handle, const ConvolutionProblem& problem,
                              const ConvolutionPointers& pointers, void* workspace) const {
  std::vector<std::int64_t> operands{operand_x, operand_w, operand_y};
  std::vector<void*> addresses{pointers.x, pointers.w, pointers.y};
  if (problem.bias) {
    operands.push_back(operand_bias);
    addresses.push_back(pointers.bias);
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::span<const std::int64_t>(operands));
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, std::span<void* const>(addresses));
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace);
  pack.finalize();
  const cudnnStatus_t status = cudnnBackendExecute(handle.get(), plan_.raw(), pack.raw());
  if (status != CUDNN_STATUS_SUCCESS)
    cudnn::check(status, "cudnnBackendExecute", fmt::format("{}; {}", problem.str(), str()));
}

std::vector<ConvolutionPlan> convolution_plans(const cudnn::Target& target, const ConvolutionGraph& graph,
                                               const ConvolutionProblem& problem, const PlanLimits& limits,
                                               std::string& reason) {
  std::vector<ConvolutionPlan> plans;
  reason = "it proposes no engine";
  const auto consider = [&](Descriptor config) {
    try {
      ConvolutionEngine engine = engine_of(config);
      if (!engine.keeps_to(problem)) {
        reason = engine.str() + " has another arithmetic";
        return;
      }
      ConvolutionPlan plan(target, std::move(engine), std::move(config));
      if (plan.workspace_bytes() > limits.workspace_bytes)
        reason = plan.str();
      else
        plans.push_back(std::move(plan));
    } catch (const cudnn::Declined& declined) {
      reason = declined.what();
    }
  };
  // Fallback engines are slower and take what the others don't.
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    std::vector<Descriptor> configs;
    try {
      configs = proposals(target, graph, mode);
    } catch (const cudnn::Declined& declined) {
      reason = declined.what();
    }
    for (Descriptor& config : configs) {
      if (plans.size() >= limits.plans) return plans;
      consider(std::move(config));
    }
    if (!plans.empty()) return plans;
  }
  return plans;
}

}  // namespace qtrain::cuda
