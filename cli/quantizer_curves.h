// What a quantizer does to numbers, found by running it: y(x), the gradient of each y with respect to its own
// x, and with respect to the learned parameters.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quant/quantizer.h"

namespace qtrain::cli {

struct CurveRange {
  double low = -1;
  double high = 1;
};

struct CurveRequest {
  std::string quantizer;
  quant::Role role = quant::Role::weight;
  int bits = 4;
  std::map<std::string, std::string> options = {};
  std::optional<CurveRange> range = {};  // unset: natural_range()
  std::int64_t points = 801;
};

struct ParameterCurve {
  std::string name;             // "alpha"; of several elements "basis[0]"
  float value = 0;              // after the forward
  std::vector<float> gradient;  // of y at each point
};

struct QuantizerCurves {
  CurveRequest request;  // with the range that was taken
  std::vector<float> x;
  std::vector<float> y;
  std::vector<float> gradient;  // dy/dx
  std::vector<ParameterCurve> parameters;
};

// The points, evenly spaced, are one tensor, the first batch in training of a newly made quantizer:
// statistics are those of the points. Each point's gradients come from a backward of its own whose dL/dy is 1
// at that point and 0 elsewhere, so that what other points contribute through a statistic stays out. That
// makes the work quadratic in the points: ValueError for more than 4001. Errors of the quantizer pass
// through.
QuantizerCurves sample_curves(const CurveRequest& request);

// A range that shows where the quantizer saturates, with some of what is beyond; [-2, 2] if it doesn't.
CurveRange natural_range(const CurveRequest& request);

}  // namespace qtrain::cli
