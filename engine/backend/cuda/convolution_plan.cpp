#include "engine/backend/cuda/convolution_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace qtrain::cuda {
namespace {

using cudnn::Descriptor;

// Names of the operands, by which a plan gets their addresses.
enum Operand : std::int64_t { operand_x = 1, operand_w, operand_y, operand_bias, operand_sum };

constexpr std::int64_t pointer_alignment =
    16;  // the allocator aligns more; no engine asks for more than this
constexpr std::size_t most_workspace = std::size_t{1} << 30;

cudnnDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDNN_DATA_FLOAT;
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    default:
      throw cudnn::Declined(fmt::format("element type {}", name_of(dtype)));
  }
}

enum class Place { in_memory, between_operations };

Descriptor tensor(Operand operand, const TensorLayout& layout, Place place = Place::in_memory) {
  Descriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  d.set<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, operand);
  d.set(CUDNN_ATTR_TENSOR_DATA_TYPE, data_type(layout.dtype));
  d.set(CUDNN_ATTR_TENSOR_DIMENSIONS, layout.sizes);
  d.set(CUDNN_ATTR_TENSOR_STRIDES, layout.strides);
  d.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, pointer_alignment);
  if (place == Place::between_operations) d.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  d.finalize();
  return d;
}

// Sums are float32, whatever the elements are. The number of groups follows from the channels of x and w.
Descriptor convolution(const ConvolutionGeometry& g) {
  using Pair = std::array<std::int64_t, 2>;
  Descriptor d(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  d.set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2);
  d.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  d.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION);
  d.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, Pair{g.pad_begin.h, g.pad_begin.w});
  d.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, Pair{g.pad_end.h, g.pad_end.w});
  d.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, Pair{g.stride.h, g.stride.w});
  d.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, Pair{g.dilation.h, g.dilation.w});
  d.finalize();
  return d;
}

// The names of one kind's attributes.
struct OperationAttributes {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
};

constexpr OperationAttributes attributes_of(ConvolutionKind kind) {
  switch (kind) {
    case ConvolutionKind::backward_data:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case ConvolutionKind::backward_weight:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    case ConvolutionKind::forward:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
}

// result = alpha * convolution + beta * result, with alpha = 1 and beta = 0.
Descriptor operation(ConvolutionKind kind, const Descriptor& convolution, const Descriptor& x,
                     const Descriptor& w, const Descriptor& y) {
  const OperationAttributes names = attributes_of(kind);
  Descriptor d(names.type);
  d.set(names.convolution, convolution);
  d.set(names.x, x);
  d.set(names.w, w);
  d.set(names.y, y);
  d.set(names.alpha, 1.0F);
  d.set(names.beta, 0.0F);
  d.finalize();
  return d;
}

Descriptor pointwise_add() {
  Descriptor d(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  d.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_POINTWISE_ADD);
  d.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
  d.finalize();
  return d;
}

Descriptor addition(const Descriptor& add, const Descriptor& x, const Descriptor& bias, const Descriptor& y) {
  Descriptor d(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  d.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, add);
  d.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  d.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, bias);
  d.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  d.finalize();
  return d;
}

// cuDNN marks engines by what they do to numbers.
bool allowed(const ConvolutionProblem& problem, const std::vector<cudnnBackendNumericalNote_t>& notes) {
  const auto has = [&](cudnnBackendNumericalNote_t note) {
    return std::ranges::find(notes, note) != notes.end();
  };
  if (has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) return false;
  if (has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)) return false;          // inputs as float16
  if (has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) return false;  // sums below float32
  // Errors of these grow with the tile: by FFT, and by Winograd tiles of more than 4x4.
  if (has(CUDNN_NUMERICAL_NOTE_FFT) || has(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6) ||
      has(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13))
    return false;
  // Tensor cores take float32 numbers as tf32.
  const bool exact_float32 = problem.multiplies_float32() && problem.math == MathMode::fp32;
  return !(exact_float32 && has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE));
}

std::vector<Descriptor> proposals(const ConvolutionGraph& graph, cudnnBackendHeurMode_t mode) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.descriptor());
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
  heuristics.finalize();
  return heuristics.get_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
}

}  // namespace

ConvolutionGraph::ConvolutionGraph(const cudnn::Handle& handle, const ConvolutionProblem& problem)
    : graph_(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
  parts_.reserve(16);  // more than there are: what follows refers to elements
  const auto part = [&](Descriptor d) -> const Descriptor& { return parts_.emplace_back(std::move(d)); };
  const Descriptor& x = part(tensor(operand_x, problem.x));
  const Descriptor& w = part(tensor(operand_w, problem.w));
  const Descriptor& y = part(tensor(operand_y, problem.y));
  const Descriptor& conv = part(convolution(problem.geometry));
  std::vector<const Descriptor*> operations;
  if (problem.bias) {
    TensorLayout sum = problem.y;
    sum.dtype = DType::f32;  // rounded once, after the bias
    const Descriptor& between = part(tensor(operand_sum, sum, Place::between_operations));
    const Descriptor& bias = part(tensor(operand_bias, *problem.bias));
    operations.push_back(&part(operation(problem.kind, conv, x, w, between)));
    operations.push_back(&part(addition(part(pointwise_add()), between, bias, y)));
  } else {
    operations.push_back(&part(operation(problem.kind, conv, x, w, y)));
  }
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle.get());
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, std::span<const Descriptor* const>(operations));
  graph_.finalize();
}

ConvolutionPlan::ConvolutionPlan(const cudnn::Handle& handle, Descriptor config)
    : config_(std::move(config)), plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
  const Descriptor engine =
      config_.get_descriptor(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  engine_ = engine.get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle.get());
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config_);
  plan_.finalize();
  const auto bytes = plan_.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
  workspace_bytes_ = static_cast<std::size_t>(std::max<std::int64_t>(bytes, 0));
}

std::string ConvolutionPlan::str() const {
  return fmt::format("engine {}, {} bytes of workspace", engine_, workspace_bytes_);
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

std::vector<ConvolutionPlan> convolution_plans(const cudnn::Handle& handle, const ConvolutionGraph& graph,
                                               const ConvolutionProblem& problem, std::size_t most,
                                               std::string& reason) {
  std::vector<ConvolutionPlan> plans;
  const auto consider = [&](Descriptor config) {
    try {
      const Descriptor engine =
          config.get_descriptor(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
      const auto notes = engine.get_all<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                                     CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
      if (!allowed(problem, notes)) {
        reason = "engines with another arithmetic only";
        return;
      }
      ConvolutionPlan plan(handle, std::move(config));
      if (plan.workspace_bytes() > most_workspace)
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
      configs = proposals(graph, mode);
    } catch (const cudnn::Declined& declined) {
      reason = declined.what();
    }
    for (Descriptor& config : configs) {
      if (plans.size() >= most) return plans;
      consider(std::move(config));
    }
    if (!plans.empty()) return plans;
  }
  return plans;
}

}  // namespace qtrain::cuda
