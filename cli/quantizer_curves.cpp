#include "cli/quantizer_curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "engine/autograd/tape.h"
#include "engine/core/error.h"
#include "quant/registry.h"

namespace qtrain::cli {
namespace {

std::vector<float> evenly_spaced(const CurveRange& range, std::int64_t count) {
  std::vector<float> points;
  for (std::int64_t i = 0; i < count; ++i) {
    const double t = static_cast<double>(i) / static_cast<double>(count - 1);
    points.push_back(static_cast<float>(range.low * (1 - t) + range.high * t));
  }
  return points;
}

// A quantizer in its first training forward. A new one each time: running statistics, counters and what the
// first batch initializes are the same in all passes.
struct Pass {
  std::shared_ptr<quant::Quantizer> quantizer;
  Tensor x;
  Tensor y;
};

Pass first_forward(const CurveRequest& request, const std::vector<float>& points) {
  const Shape shape{1, 1, 1, static_cast<std::int64_t>(points.size())};
  // One channel, so one group.
  const Shape own = request.role == quant::Role::weight ? shape : Shape{1, 1, 1, 1};
  Pass pass;
  pass.quantizer = quant::make_quantizer(request.quantizer, request.role, request.bits,
                                         quant::LayerKind::convolution, request.options, own);
  pass.x = Tensor::from_values(shape, points);
  pass.x.set_requires_grad(true);
  pass.y = pass.quantizer->forward(pass.x);
  return pass;
}

std::vector<float> values_of(const Tensor& gradient, std::int64_t count) {
  return gradient.defined() ? gradient.values() : std::vector<float>(static_cast<std::size_t>(count), 0.0F);
}

std::vector<ParameterCurve> parameters_of(Pass& pass, std::size_t points) {
  std::vector<ParameterCurve> curves;
  for (const NamedTensor& p : pass.quantizer->named_parameters()) {
    const std::vector<float> values = p.tensor.values();
    for (std::size_t i = 0; i < values.size(); ++i)
      curves.push_back({values.size() == 1 ? p.name : fmt::format("{}[{}]", p.name, i), values[i],
                        std::vector<float>(points, 0.0F)});
  }
  return curves;
}

// What an evenly spaced tensor shows at its ends.
struct End {
  float y = 0;
  bool flat = false;      // y is the same in the last twentieth
  bool gradient = false;  // some gradient there is more than a thirtieth of the largest anywhere
};
struct Ends {
  End low;
  End high;
  bool one_sided = false;  // y is the same for all x below 0, and not for all above
};

bool all_equal(const std::vector<float>& values, std::size_t first, std::size_t last) {
  return std::all_of(values.begin() + static_cast<std::ptrdiff_t>(first),
                     values.begin() + static_cast<std::ptrdiff_t>(last) + 1,
                     [&](float v) { return v == values[first]; });
}

Ends ends_of(const CurveRequest& request, double r) {
  constexpr std::size_t count = 401;
  constexpr std::size_t margin = 20;
  const Pass pass = first_forward(request, evenly_spaced({-r, r}, count));
  const std::vector<float> y = pass.y.values();
  std::vector<float> gradient(count, 1.0F);
  if (pass.y.producer() != nullptr) {
    Tape::backward(pass.y, Tensor::full(pass.y.shape(), 1.0F));
    gradient = values_of(pass.x.grad(), count);
  }
  const auto magnitude = [](float v) { return std::abs(v); };
  const float small = std::ranges::max(gradient, {}, magnitude) / 30;
  const auto end = [&](std::size_t first, std::size_t last, std::size_t outermost) {
    bool zero = true;
    for (std::size_t i = first; i <= last; ++i) zero = zero && std::abs(gradient[i]) <= std::abs(small);
    return End{y[outermost], all_equal(y, first, last), !zero};
  };
  return {end(0, margin, 0), end(count - 1 - margin, count - 1, count - 1),
          all_equal(y, 0, count / 2 - 1) && !all_equal(y, count / 2 + 1, count - 1)};
}

}  // namespace

QuantizerCurves sample_curves(const CurveRequest& request) {
  if (request.points < 2 || request.points > 4001)
    throw ValueError({"explain", "number of points", std::to_string(request.points), "2..4001", ""});
  QuantizerCurves curves{.request = request};
  if (!request.range) curves.request.range = natural_range(request);
  const CurveRange range = *curves.request.range;
  if (!(range.low < range.high) || !std::isfinite(static_cast<float>(range.high)) ||
      !std::isfinite(static_cast<float>(range.low)))
    throw ValueError({"explain", "empty range", fmt::format("{},{}", range.low, range.high),
                      "LOW,HIGH with LOW below HIGH", ""});
  curves.x = evenly_spaced(range, request.points);
  const std::size_t count = curves.x.size();
  Pass pass = first_forward(request, curves.x);
  curves.y = pass.y.values();
  curves.parameters = parameters_of(pass, count);
  curves.gradient.assign(count, 1.0F);
  if (pass.y.producer() == nullptr) return curves;  // the input itself

  std::vector<float> one(count, 0.0F);
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0) pass = first_forward(request, curves.x);
    one[i] = 1;
    Tape::backward(pass.y, Tensor::from_values(pass.y.shape(), one));
    one[i] = 0;
    curves.gradient[i] = values_of(pass.x.grad(), request.points)[i];
    std::size_t k = 0;
    for (const Tensor& p : pass.quantizer->parameters())
      for (const float v : values_of(p.grad(), p.numel())) curves.parameters[k++].gradient[i] = v;
  }
  return curves;
}

// Saturated: what lies far outside has no other value, and has lost its gradient already if it ever does.
CurveRange natural_range(const CurveRequest& request) {
  const Ends far = ends_of(request, 100);
  const auto like = [](const End& near, const End& distant) {
    return near.flat && near.y == distant.y && near.gradient == distant.gradient;
  };
  for (const double r :
       {1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0}) {
    const Ends ends = ends_of(request, r);
    if (like(ends.low, far.low) && like(ends.high, far.high)) return {ends.one_sided ? -r / 4 : -r, r};
  }
  return {-2, 2};
}

}  // namespace qtrain::cli
