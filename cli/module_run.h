// One forward and one backward of a module on tensors with the names of golden cases:
//   in   x, param.P and state.S (values for the module's parameters and buffers), grad_y
//   out  y, state_after.S; param_after.P of parameters that the forward itself moved; where grad_y was given,
//        grad_x and grad.P (zero where the parameter was not used)
#pragma once

#include <string>
#include <vector>

#include "engine/io/tensor_file.h"
#include "layers/module.h"
#include "quant/quantizer.h"

namespace qtrain::cli {

// Tensors of `tensors` whose names begin with `prefix`, without it.
TensorMap with_prefix(const TensorMap& tensors, const std::string& prefix);

// The shape that a quantizer of `x` is made for (see QuantizerSpec::shape).
Shape parameter_basis(const Tensor& x, quant::Role role);

// Moves the module to the device and runs it. `where` is named in messages. FormatError for a missing x or a
// param.P or state.S that the module doesn't have; ShapeError for a grad_y unlike y.
TensorMap run_module(Module& module, const TensorMap& tensors, bool training, Device device,
                     const std::string& where);

}  // namespace qtrain::cli
