// Activations, elementwise on f32 or bf16 tensors of any shape. Derivatives at the kinks are PyTorch's: relu
// and relu6 pass nothing at their ends, leaky_relu has its slope at 0, clamp passes at both ends.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

Tensor relu(const Tensor& x);                                      // max(x, 0)
Tensor relu6(const Tensor& x);                                     // min(max(x, 0), 6)
Tensor leaky_relu(const Tensor& x, float negative_slope = 0.01F);  // x > 0 ? x : slope * x
Tensor clamp(const Tensor& x, float low, float high);              // hardtanh for -1, 1
Tensor sigmoid(const Tensor& x);                                   // 1 / (1 + exp(-x))
Tensor tanh(const Tensor& x);
Tensor silu(const Tensor& x);          // x * sigmoid(x)
Tensor hard_sigmoid(const Tensor& x);  // relu6(x + 3) / 6
Tensor hard_swish(const Tensor& x);    // x * relu6(x + 3) / 6

}  // namespace qtrain
