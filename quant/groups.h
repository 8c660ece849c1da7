// Which elements of a tensor share a quantizer's parameters.
//   weights   the elements in [O, I, kh, kw] order, cut into G equal runs; G = O is one group an output
//   channel inputs, outputs   G equal ranges of channels
// A parameter has one element a group: [G, 1, 1, 1] for weights, [1] or [1, G, 1, 1] for inputs and outputs.
#pragma once

#include "engine/kernels/grouped.h"
#include "quant/quantizer.h"

namespace qtrain::quant {

// The number of groups that an option asks for: n; -k for groups of k kernels ([kh, kw] slices; rows of a
// linear weight); 0 for `usual`, or where that is 0 too, for one an output channel of the weights of
// convolutions, else one. A number that doesn't divide the kernels (channels of inputs and outputs) counts as
// 0, so that one setting can serve a network whose layers differ.
std::int64_t resolve_groups(std::int64_t asked, const QuantizerSpec& spec, std::int64_t usual = 0);

Shape parameter_shape(Role role, std::int64_t groups);

// True where the groups cut through output channels: they are no contiguous memory in channels-last order,
// and grouping_of() wants the tensor reshaped to [groups, -1] first.
bool needs_row_major(const Tensor& x, Role role, std::int64_t groups);

// ShapeError if the tensor can't be divided into so many groups.
Grouping grouping_of(std::string_view op, const Tensor& x, Role role, std::int64_t groups);

}  // namespace qtrain::quant
