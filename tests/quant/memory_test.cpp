// No quantizer holds more tensors of its input's size than its registration says: forward and backward are
// passes over x, not chains of temporaries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr std::int64_t channels = 64;

Shape shape_of(Role role) {
  if (role == Role::weight) return {channels, 64, 16, 16};
  if (role == Role::bias) return {std::int64_t{1} << 20};
  return {16, channels, 32, 32};
}

// Of one element, as wrapping gives it.
Shape layer_shape(Role role) {
  return role == Role::weight || role == Role::bias ? shape_of(role) : Shape{1, channels, 1, 1};
}

Tensor ramp(const Shape& shape) {
  Tensor x = Tensor::empty(shape);
  float* const values = x.data<float>();
  const std::int64_t n = x.numel();
  // In scattered order: 7919 is prime.
  for (std::int64_t i = 0; i < n; ++i)
    values[i] = 4 * static_cast<float>((i * 7919) % n) / static_cast<float>(n) - 2;
  return x;
}

// The most memory in use during `work`, above what was in use before, in tensors like x.
template <class Work>
double peak_of(const Tensor& x, std::size_t before, Work&& work) {
  Allocator& allocator = backend({}).allocator();
  allocator.reset_peak();
  work();
  const std::size_t peak = std::max(allocator.statistics().peak_in_use, before);
  return static_cast<double>(peak - before) / static_cast<double>(x.bytes());
}

// Full-size tensors beyond x, y, dL/dy and dL/dx; a small fraction for sums a group and a thread.
double temporaries_of(Quantizer& quantizer, Role role) {
  Tensor x = ramp(shape_of(role));
  const Tensor g = Tensor::full(x.shape(), 1.0F);
  x.set_requires_grad(true);
  // The first step may measure the batch to set parameters; what counts is every other step.
  double most = 0;
  for (int step = 0; step < 2; ++step) {
    Tensor y;
    const std::size_t before = backend({}).allocator().statistics().in_use;
    most = peak_of(x, before, [&] { y = quantizer.forward(x); }) - 1;
    if (y.producer() != nullptr) most = std::max(most, peak_of(x, before, [&] { Tape::backward(y, g); }) - 2);
    x.set_grad({});
    for (const Tensor& p : quantizer.parameters()) p.set_grad({});
  }
  return std::max(most, 0.0);
}

TEST(QuantizerMemory, NoMoreTemporariesThanDeclared) {
  for (const QuantizerInfo* info : quantizers()) {
    int most = 0;
    for (const Role role : info->roles) {
      const auto quantizer = make_quantizer(info->name, role, nearest_bits(*info, role, 4),
                                            LayerKind::convolution, {}, layer_shape(role));
      const double measured = temporaries_of(*quantizer, role);
      EXPECT_LE(measured, info->full_size_temporaries + 0.1) << info->name << ", " << name_of(role);
      most = std::max(most, static_cast<int>(std::ceil(measured - 0.1)));
    }
    EXPECT_EQ(most, info->full_size_temporaries) << info->name << " needs less than it declares";
  }
}

// The measure itself: a quantizer that isn't in the registry, with temporaries of a known number.
class Wasteful final : public Quantizer {
 public:
  explicit Wasteful(int temporaries) : Quantizer(4), temporaries_(temporaries) {}
  std::string kind() const override { return "Wasteful"; }
  Tensor forward(const Tensor& x) override {
    std::vector<Tensor> held;
    for (int i = 0; i < temporaries_; ++i) held.push_back(Tensor::zeros_like(x));
    return x.clone();
  }

 private:
  int temporaries_;
};

TEST(QuantizerMemory, TemporariesAreSeen) {
  for (const int temporaries : {0, 1, 3}) {
    Wasteful quantizer(temporaries);
    EXPECT_NEAR(temporaries_of(quantizer, Role::weight), temporaries, 0.1);
  }
}

}  // namespace
}  // namespace qtrain::quant
