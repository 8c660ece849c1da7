// The levels of adaptive floating point, for what needs them one by one; see afp.cpp.
#pragma once

#include <span>
#include <vector>

namespace qtrain::quant {

inline constexpr int afp_least_bits = 3;
inline constexpr int afp_most_bits = 8;

// The 2^(bits-1) non-negative levels for weights whose largest magnitude is `largest` > 0, in the order of
// the reference: ascending, with 0 at the end. ValueError for bits that there aren't.
std::vector<float> afp_levels(int bits, float largest);

// w rounded to the nearest of an ascending list of positive levels and 0, with w's sign: ties go to the
// smaller of two levels, but to the first level rather than to 0; beyond the last it is the last. NaN passes.
float nearest_level(std::span<const float> levels, float w);

}  // namespace qtrain::quant
