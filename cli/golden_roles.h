// How a golden case is computed: one runner for each role.
#pragma once

#include "cli/golden_family.h"

namespace qtrain::cli {

// The case's results by the names of its tensors: y, grad_x, grad.P, state_after.S, ...
// Throws an Error where the case can't be run: unknown quantizer, role, option or bit-width.
TensorMap run_golden_case(const GoldenFamily& family, const GoldenCase& golden, Device device);

}  // namespace qtrain::cli
