// A grouped quantizer whose own math is plain, multiples of 1/2 with the gradient passed on, so that the
// rules around it show.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/rng.h"
#include "quant/fake_quantize.h"
#include "quant/grouped_quantizer.h"

namespace qtrain::quant::testing_support {

using Values = std::vector<float>;

struct HalvesMath {
  static constexpr bool straight_through = true;
  float offset = 0;  // makes a quantizer to which zeros matter
  float forward(float x) const { return round_half_to_even(2 * x) / 2 + offset; }
};

class Halves final : public GroupedQuantizer {
 public:
  explicit Halves(const QuantizerSpec& spec, float offset = 0)
      : GroupedQuantizer("halves", spec), offset_(offset), clip_(add_group_parameter("clip", 1)) {}

  std::vector<std::int64_t> warm_ups;

 protected:
  Tensor quantize(const Tensor& x, const Grouping& grouping) override {
    return fake_quantize<0>(op(), x, HalvesMath{offset_}, {}, grouping);
  }
  void warm_up(const Tensor& x, const Grouping& grouping, std::int64_t t) override {
    warm_ups.push_back(t);
    follow_maximum(clip_, x, grouping, t);
  }
  bool ignores_zeros() const override { return offset_ == 0; }

 private:
  float offset_;
  const Tensor& clip_;
};

inline QuantizerSpec spec_of(Role role, const Shape& shape,
                             const std::map<std::string, std::string>& options) {
  return {.role = role,
          .bits = 4,
          .layer = shape.rank() == 4 ? LayerKind::convolution : LayerKind::linear,
          .options = Options("halves", rule_options(role), options),
          .shape = shape};
}

inline std::shared_ptr<Halves> weight_halves(const Shape& shape,
                                             const std::map<std::string, std::string>& options,
                                             float offset = 0) {
  return std::make_shared<Halves>(spec_of(Role::weight, shape, options), offset);
}

inline Values normal_values(std::int64_t count, std::uint64_t seed, double deviation = 1, double mean = 0) {
  RandomStream random(seed, RandomPurpose::user);
  Values values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>(mean + deviation * random.normal());
  return values;
}

inline Tensor normal(const Shape& shape, std::uint64_t seed, double deviation = 1, double mean = 0) {
  return Tensor::from_values(shape, normal_values(shape.numel(), seed, deviation, mean));
}

inline float halves(double x) {
  return round_half_to_even(2 * static_cast<float>(x)) / 2;
}

inline void expect_near(const Values& got, const Values& want, float tolerance, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << what << " " << i;
}

struct Result {
  Values y;
  Values grad_x;
};

inline Result run(Quantizer& quantizer, const Tensor& values, const Tensor& g) {
  const Tensor x = values.clone().set_requires_grad(true);
  const Tensor y = quantizer.forward(x);
  Tape::backward(y, g);
  return {y.values(), x.grad().values()};
}

inline Tensor parameter(Module& module, const std::string& name) {
  for (const NamedTensor& t : module.state_dict())
    if (t.name == name) return t.tensor;
  ADD_FAILURE() << "no " << name;
  return {};
}

inline std::int64_t counted(Module& module) {
  return *parameter(module, "forwards").data<std::int64_t>();
}

// Mean and standard deviation of each run of equal length, in double.
struct Moments {
  double mean = 0;
  double std = 0;
};
inline std::vector<Moments> moments(const Values& x, std::size_t groups) {
  const std::size_t size = x.size() / groups;
  std::vector<Moments> result(groups);
  for (std::size_t i = 0; i < x.size(); ++i)
    result[i / size].mean += static_cast<double>(x[i]) / static_cast<double>(size);
  for (std::size_t i = 0; i < x.size(); ++i) {
    Moments& m = result[i / size];
    m.std += std::pow(static_cast<double>(x[i]) - m.mean, 2) / static_cast<double>(size - 1);
  }
  for (Moments& m : result) m.std = std::sqrt(m.std);
  return result;
}

}  // namespace qtrain::quant::testing_support
