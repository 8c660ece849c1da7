#include "engine/backend/cuda/convolution_graph.h"

#include <fmt/format.h>

namespace qtrain::cuda {
namespace {

using cudnn::Descriptor;

constexpr std::int64_t pointer_alignment = 16;  // of the widest loads; the allocator aligns more

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

}  // namespace

ConvolutionGraph::ConvolutionGraph(const cudnn::Target& target, const ConvolutionProblem& problem)
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
  if (target.handle != nullptr) graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, target.handle->get());
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, std::span<const Descriptor* const>(operations));
  graph_.finalize();
}

}  // namespace qtrain::cuda
