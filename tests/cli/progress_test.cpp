#include "cli/progress.h"
#include "cli/count_progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace qtrain::cli {
namespace {

// A run of 10 epochs of 100 steps of 0.5 s, with an evaluation of 20 batches after each.
class ProgressTest : public testing::Test {
 protected:
  Progress::Output output(bool terminal, int width = 0, std::int64_t log_interval = 0) {
    return {&text_, terminal, [width] { return width; }, [this] { return now_; }, log_interval};
  }

  StepProgress step(std::int64_t number, double seconds = 0.5) {
    now_ += seconds;
    return {.epoch = (number - 1) / 100 + 1,
            .step_in_epoch = (number - 1) % 100 + 1,
            .step = number,
            .loss = 1.234,
            .top1 = 0.567,
            .images = 100,
            .seconds = seconds,
            .wait_seconds = seconds / 100};
  }

  std::ptrdiff_t count(char c) const {
    const std::string text = text_.str();
    return std::count(text.begin(), text.end(), c);
  }

  std::ostringstream text_;
  double now_ = 0;
  RunPlan plan_{
      .epochs = 10, .steps_per_epoch = 100, .total_steps = 1000, .evaluations = 10, .evaluation_batches = 20};
};

TEST_F(ProgressTest, TheLine) {
  Progress progress(output(false), plan_);
  progress.step(step(120));
  // 880 steps of 0.5 s and 10 evaluations of 20 batches, each taken as a third of a step.
  EXPECT_EQ(text_.str(), "epoch 2/10  step 20/100  loss 1.234  top-1 56.7%  200 img/s  wait 1%  ETA 7m53s\n");
}

TEST_F(ProgressTest, ATerminalLineIsRewrittenAtMostTenTimesASecond) {
  {
    Progress progress(output(true), plan_);
    for (int i = 1; i <= 1000; ++i) progress.step(step(i, 0.01));
  }
  EXPECT_LE(count('\r'), 100 + 1);
  EXPECT_GE(count('\r'), 90);
  EXPECT_EQ(count('\n'), 1);  // the cursor leaves the line at the end
}

TEST_F(ProgressTest, ATerminalLineFitsItsWidth) {
  for (const int width : {200, 75, 60, 30, 12, 5, 1}) {
    text_.str("");
    Progress progress(output(true, width), plan_);
    progress.step(step(120));
    std::string line = text_.str();
    line = line.substr(1, line.find('\x1b') - 1);
    EXPECT_LT(line.size(), static_cast<std::size_t>(width));
    if (width == 75) {
      EXPECT_EQ(line, "epoch 2/10  step 20/100  loss 1.234  top-1 56.7%  200 img/s  ETA 7m53s");
    }
    if (width == 30) {
      EXPECT_EQ(line, "epoch 2/10  step 20/100");
    }
  }
}

TEST_F(ProgressTest, PlainLinesComeEveryTenSeconds) {
  Progress progress(output(false), plan_);
  for (int i = 1; i <= 100; ++i) progress.step(step(i));  // 50 s
  EXPECT_EQ(count('\n'), 5);
  EXPECT_EQ(count('\r'), 0);
  EXPECT_EQ(count('\x1b'), 0);
}

TEST_F(ProgressTest, PlainLinesByStepsDoNotDependOnTime) {
  Progress progress(output(false, 0, 25), plan_);
  for (int i = 1; i <= 110; ++i) progress.step(step(i, 100.0 / i));
  EXPECT_EQ(count('\n'), 4);
  EXPECT_NE(text_.str().find("step 75/100"), std::string::npos);
}

TEST_F(ProgressTest, LinesThatStayClearTheRewrittenOne) {
  Progress progress(output(true), plan_);
  progress.step(step(1));
  progress.line("epoch 1 done");
  EXPECT_NE(text_.str().find("\r\x1b[Kepoch 1 done\n"), std::string::npos);
}

TEST_F(ProgressTest, RatesForgetTheFirstStepAndFollowChanges) {
  Progress progress(output(false), plan_);
  progress.step(step(1, 60));  // warming up
  progress.step(step(2, 0.5));
  EXPECT_DOUBLE_EQ(progress.images_per_second(), 200);
  EXPECT_DOUBLE_EQ(progress.wait_share(), 0.01);
  for (int i = 3; i <= 300; ++i) progress.step(step(i, 0.25));
  EXPECT_NEAR(progress.images_per_second(), 400, 1);
}

TEST_F(ProgressTest, TheEtaCoversEvaluations) {
  Progress progress(output(false), plan_);
  for (int i = 1; i <= 100; ++i) progress.step(step(i));
  progress.evaluation(5, 2.0);  // 15 batches of 0.4 s left; 9 more evaluations, not timed yet
  EXPECT_NEAR(progress.eta_seconds(), 900 * 0.5 + 6 + 9 * 20 * 0.5 / 3, 1e-6);
  progress.evaluation(20, 8.0);
  EXPECT_NEAR(progress.eta_seconds(), 900 * 0.5 + 9 * 8, 1e-6);
  progress.step(step(101));
  EXPECT_NEAR(progress.eta_seconds(), 899 * 0.5 + 9 * 8, 1e-6);
}

TEST_F(ProgressTest, AnEmptyPlanShowsNoNonsense) {
  Progress progress(output(false), RunPlan{});
  EXPECT_EQ(progress.eta_seconds(), 0);
  EXPECT_EQ(progress.images_per_second(), 0);
  progress.step(step(1, 0));
  progress.evaluation(0, 0);
  EXPECT_EQ(text_.str().find("nan"), std::string::npos);
}

TEST(Duration, Text) {
  EXPECT_EQ(duration_text(0), "0s");
  EXPECT_EQ(duration_text(59.4), "59s");
  EXPECT_EQ(duration_text(59.6), "1m00s");
  EXPECT_EQ(duration_text(130), "2m10s");
  EXPECT_EQ(duration_text(3720), "1h02m");
  EXPECT_EQ(duration_text(3 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(duration_text(-1), "?");
  EXPECT_EQ(duration_text(1.0 / 0.0), "?");
}

TEST_F(ProgressTest, CountingImages) {
  CountProgress progress(output(false), "packed");
  now_ = 5;
  progress.show(400, 5000);  // too early
  now_ = 10;
  progress.show(1000, 5000);
  EXPECT_EQ(text_.str(), "packed 1000/5000  20%  100 img/s  ETA 40s\n");
  EXPECT_EQ(progress.seconds(), 10);
}

TEST_F(ProgressTest, CountingOnATerminalLeavesNothing) {
  {
    CountProgress progress(output(true, 20), "packed");
    for (std::size_t i = 1; i <= 1000; ++i) {
      now_ += 0.01;
      progress.show(i, 1000);
    }
  }
  EXPECT_GE(count('\r'), 90);
  EXPECT_LE(count('\r'), 101);
  EXPECT_EQ(count('\n'), 0);
  EXPECT_TRUE(text_.str().ends_with("\r\x1b[K"));
  EXPECT_EQ(text_.str().find("packed 11/1000  1%  "), std::string::npos) << "cut to 19 columns";
  EXPECT_NE(text_.str().find("\rpacked 11/1000  1% \x1b[K"), std::string::npos);
}

}  // namespace
}  // namespace qtrain::cli
