#include "engine/optim/clip.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/autograd/tape.h"
#include "engine/core/error.h"
#include "engine/core/host_read.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/reduce.h"

namespace qtrain {
namespace {

Tensor with_gradient(const std::vector<float>& gradient) {
  Tensor p = Tensor::zeros({static_cast<std::int64_t>(gradient.size())});
  p.set_grad(Tensor::from_values({static_cast<std::int64_t>(gradient.size())}, gradient));
  return p;
}

TEST(ClipNorm, ScalesAllGradientsTogether) {
  const std::vector<Tensor> p{with_gradient({3, 0}), with_gradient({4}), Tensor::zeros({2})};
  const std::uint64_t reads = host_read_count();
  const Tensor norm = clip_gradient_norm(p, 1);
  EXPECT_EQ(host_read_count(), reads) << "the host must not wait for the device";
  EXPECT_FLOAT_EQ(norm.item(), 5);
  EXPECT_NEAR(p[0].grad().values()[0], 0.6, 1e-6);
  EXPECT_NEAR(p[1].grad().values()[0], 0.8, 1e-6);
  EXPECT_FALSE(p[2].grad().defined());
}

TEST(ClipNorm, LeavesSmallGradientsAlone) {
  const std::vector<Tensor> p{with_gradient({3, 4})};
  EXPECT_FLOAT_EQ(clip_gradient_norm(p, 5.5F).item(), 5);
  EXPECT_EQ(p[0].grad().values(), (std::vector<float>{3, 4}));
  const std::vector<Tensor> zero{with_gradient({0, 0})};
  EXPECT_EQ(clip_gradient_norm(zero, 1).item(), 0.0F);
  EXPECT_EQ(zero[0].grad().values(), (std::vector<float>{0, 0}));
  EXPECT_EQ(clip_gradient_norm({}, 1).item(), 0.0F);
}

TEST(ClipNorm, SumsLargeTensors) {
  const std::vector<Tensor> p{with_gradient(std::vector<float>(100000, 0.01F))};
  EXPECT_NEAR(clip_gradient_norm(p, 1).item(), 0.01 * std::sqrt(1e5), 1e-5);
}

// backward may hand the same tensor to several leaves: each is still clipped once.
TEST(ClipNorm, SharedGradientsAreClippedOnce) {
  Tensor a = Tensor::zeros({2});
  Tensor b = Tensor::zeros({2});
  a.set_requires_grad(true);
  b.set_requires_grad(true);
  Tape::backward(sum(add(a, b)));
  const std::vector<Tensor> p{a, b};
  EXPECT_FLOAT_EQ(clip_gradient_norm(p, 1).item(), 2);
  EXPECT_NEAR(a.grad().values()[0], 0.5, 1e-6);
  EXPECT_NEAR(b.grad().values()[0], 0.5, 1e-6);
}

TEST(ClipNorm, NanPassesOn) {
  const std::vector<Tensor> p{with_gradient({NAN, 1})};
  EXPECT_TRUE(std::isnan(clip_gradient_norm(p, 1).item()));
  EXPECT_TRUE(std::isnan(p[0].grad().values()[1]));
}

TEST(ClipValues, ClipsEachElement) {
  const std::vector<Tensor> p{with_gradient({-3, 0.5F, 2}), Tensor::zeros({1})};
  clip_gradient_values(p, 1);
  EXPECT_EQ(p[0].grad().values(), (std::vector<float>{-1, 0.5F, 1}));
}

TEST(Clip, RefusesBadBounds) {
  EXPECT_THROW(clip_gradient_norm({}, -1), ValueError);
  EXPECT_THROW(clip_gradient_norm({}, NAN), ValueError);
  EXPECT_THROW(clip_gradient_values({}, -1), ValueError);
}

}  // namespace
}  // namespace qtrain
