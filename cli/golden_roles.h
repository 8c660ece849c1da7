// How a golden case is computed: one runner for each role.
#pragma once

#include "cli/golden_family.h"

namespace qtrain::cli {

// Why nothing in this build runs the case: no such quantizer, or no runner for the role. Empty where one
// does.
std::string why_not_run(const GoldenFamily& family, const GoldenCase& golden);

// The case's results by the names of its tensors: y, grad_x, grad.P, state_after.S, ...
// Throws an Error where the case can't be run: unknown quantizer, role, option or bit-width.
TensorMap run_golden_case(const GoldenFamily& family, const GoldenCase& golden, Device device);

}  // namespace qtrain::cli
