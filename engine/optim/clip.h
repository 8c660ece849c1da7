// Gradient clipping, between backward() and step(). Parameters without a gradient are skipped.
#pragma once

#include <span>

#include "engine/core/tensor.h"

namespace qtrain {

// The L2 norm of all gradients together, as a scalar on their device, with which the host need not wait.
// DeviceError for several devices.
Tensor gradient_norm(std::span<const Tensor> parameters);

// Multiplies all gradients by min(1, max_norm / (norm + 1e-6)) with the L2 norm over all of them together
// (Pascanu et al. 2013; torch.nn.utils.clip_grad_norm_). Returns gradient_norm()
// from before. ValueError unless max_norm >= 0; DeviceError for several devices.
Tensor clip_gradient_norm(std::span<const Tensor> parameters, float max_norm);

// Clips every element of every gradient to -limit..limit. ValueError unless limit >= 0.
void clip_gradient_values(std::span<const Tensor> parameters, float limit);

}  // namespace qtrain
