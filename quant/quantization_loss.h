// A quantizer's own part of the loss, for x and its quantized y of n elements (QTool, Chen et al.):
//   l1   1/n sum |x - y|
//   l2   1/n sum (x - y)^2
//   qdl  |sum xy / sum yy - 1|   (0 where y is all zero)
// The gradient flows into both x and y.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain::quant {

enum class QuantizationLoss { none, l1, l2, qdl };
QuantizationLoss parse_quantization_loss(std::string_view name);  // none, l1, l2, qdl

// A scalar. ShapeError unless x and y are alike.
Tensor quantization_loss(QuantizationLoss kind, const Tensor& x, const Tensor& y);

}  // namespace qtrain::quant
