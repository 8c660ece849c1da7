#include "engine/optim/schedules.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/core/error.h"

namespace qtrain {
namespace {

TEST(Schedules, ClosedForms) {
  EXPECT_EQ(make_schedule({.name = "constant"})(12345), 1);

  const Schedule cosine = make_schedule({.name = "cosine", .total_steps = 100, .final_factor = 0.1});
  EXPECT_DOUBLE_EQ(cosine(0), 1);
  EXPECT_NEAR(cosine(50), 0.55, 1e-12);
  EXPECT_NEAR(cosine(25), 0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2, 1e-12);
  EXPECT_NEAR(cosine(100), 0.1, 1e-12);
  EXPECT_NEAR(cosine(1000), 0.1, 1e-12);

  const Schedule linear = make_schedule({.name = "linear", .total_steps = 10, .final_factor = 0.5});
  EXPECT_DOUBLE_EQ(linear(0), 1);
  EXPECT_DOUBLE_EQ(linear(4), 0.8);
  EXPECT_DOUBLE_EQ(linear(11), 0.5);

  const Schedule polynomial = make_schedule({.name = "polynomial", .total_steps = 10, .power = 2});
  EXPECT_DOUBLE_EQ(polynomial(5), 0.25);
  EXPECT_DOUBLE_EQ(polynomial(10), 0);

  const Schedule multistep = make_schedule({.name = "multistep", .milestones = {20, 10}, .gamma = 0.5});
  EXPECT_DOUBLE_EQ(multistep(9), 1);
  EXPECT_DOUBLE_EQ(multistep(10), 0.5);
  EXPECT_DOUBLE_EQ(multistep(20), 0.25);

  const Schedule exponential = make_schedule({.name = "exponential", .gamma = 0.5, .period = 10});
  EXPECT_DOUBLE_EQ(exponential(5), std::sqrt(0.5));
  EXPECT_DOUBLE_EQ(exponential(20), 0.25);
  const Schedule stairs =
      make_schedule({.name = "exponential", .gamma = 0.5, .period = 10, .staircase = true});
  EXPECT_DOUBLE_EQ(stairs(9), 1);
  EXPECT_DOUBLE_EQ(stairs(19), 0.5);
}

TEST(Schedules, WarmUpComesFirst) {
  for (const std::string& name : schedule_names()) {
    const Schedule s = make_schedule(
        {.name = name, .total_steps = 20, .warmup_steps = 4, .warmup_start = 0.2, .milestones = {10}});
    EXPECT_DOUBLE_EQ(s(0), 0.2) << name;
    EXPECT_DOUBLE_EQ(s(1), 0.4) << name;
    EXPECT_DOUBLE_EQ(s(3), 0.8) << name;
    EXPECT_DOUBLE_EQ(s(4), 1) << name;
  }
  EXPECT_NEAR(make_schedule({.name = "cosine", .total_steps = 20, .warmup_steps = 4})(12), 0.5, 1e-12);
  EXPECT_DOUBLE_EQ(make_schedule({.name = "multistep", .warmup_steps = 4, .milestones = {5}})(5), 0.1);
}

// AdaBits with batch 1024: 10 epochs of 4 iterations, 5 of them warm-up from 256/1024, lr 0.05 * 4.
TEST(Schedules, AdaBitsExample) {
  const Schedule s =
      make_schedule({.name = "cosine", .total_steps = 40, .warmup_steps = 20, .warmup_start = 0.25});
  EXPECT_NEAR(0.2 * s(0), 0.05, 1e-12);
  EXPECT_NEAR(0.2 * s(1), 0.0575, 1e-12);
  EXPECT_NEAR(0.2 * s(20), 0.2, 1e-12);
  EXPECT_NEAR(0.2 * s(21), 0.19877, 1e-5);
  EXPECT_NEAR(0.2 * s(39), 0.0012312, 1e-7);
  const Schedule e =
      make_schedule({.name = "exponential", .total_steps = 40, .warmup_steps = 20, .gamma = std::exp(-8.0)});
  EXPECT_NEAR(e(30), std::exp(-4.0), 1e-12);
}

TEST(Schedules, RefusesBadOptions) {
  try {
    make_schedule({.name = "cosin"});
    FAIL();
  } catch (const ValueError& e) {
    EXPECT_NE(std::string(e.what()).find("did you mean 'cosine'"), std::string::npos) << e.what();
  }
  EXPECT_THROW(make_schedule({.name = "cosine"}), ValueError);
  EXPECT_THROW(make_schedule({.name = "cosine", .total_steps = 5, .warmup_steps = 5}), ValueError);
  EXPECT_THROW(make_schedule({.name = "constant", .warmup_steps = -1}), ValueError);
  EXPECT_THROW(make_schedule({.name = "linear", .total_steps = 5, .final_factor = NAN}), ValueError);
  EXPECT_THROW(make_schedule({.name = "multistep", .gamma = -1}), ValueError);
  EXPECT_THROW(make_schedule({.name = "exponential", .period = -1}), ValueError);
}

}  // namespace
}  // namespace qtrain
