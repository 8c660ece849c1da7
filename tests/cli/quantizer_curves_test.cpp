#include "cli/quantizer_curves.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/quantizer_figure.h"
#include "engine/core/error.h"
#include "tests/cli/temporary_folder.h"

namespace qtrain::cli {
namespace {

using quant::Role;

TEST(QuantizerCurves, OfSatsActivationsAreItsFormulas) {
  const QuantizerCurves curves = sample_curves(
      {.quantizer = "sat", .role = Role::activation, .bits = 2, .range = CurveRange{-3, 11}, .points = 281});
  ASSERT_EQ(curves.x.size(), 281U);
  ASSERT_EQ(curves.parameters.size(), 1U);
  EXPECT_EQ(curves.parameters[0].name, "alpha");
  EXPECT_EQ(curves.parameters[0].value, 8);
  EXPECT_EQ(curves.x.front(), -3);
  EXPECT_EQ(curves.x.back(), 11);
  for (std::size_t i = 0; i < curves.x.size(); ++i) {
    const double x = static_cast<double>(curves.x[i]);
    const double n = std::min(std::max(x, 0.0), 8.0) / 8;
    if (std::abs(3 * n - std::floor(3 * n) - 0.5) < 1e-3 || std::abs(x) < 1e-3 || std::abs(x - 8) < 1e-3)
      continue;
    const double q = std::round(3 * n) / 3;
    EXPECT_NEAR(static_cast<double>(curves.y[i]), 8 * q, 1e-5) << x;
    EXPECT_EQ(curves.gradient[i], x > 0 && x < 8 ? 1 : 0) << x;
    EXPECT_NEAR(static_cast<double>(curves.parameters[0].gradient[i]), q - n + (x > 8 ? 1 : 0), 1e-5) << x;
  }
}

// Weights of sat depend on each other through the largest; a point's gradient is that of its own output.
TEST(QuantizerCurves, LeaveOutWhatOtherPointsContribute) {
  const QuantizerCurves curves = sample_curves({.quantizer = "sat",
                                                .role = Role::weight,
                                                .bits = 4,
                                                .options = {{"scheme", "original"}},
                                                .range = CurveRange{-1, 2},
                                                .points = 31});
  const double m = std::tanh(2.0);
  EXPECT_TRUE(curves.parameters.empty());
  for (std::size_t i = 0; i < curves.x.size(); ++i) {
    const double t = std::tanh(static_cast<double>(curves.x[i]));
    // The largest is its own scale: its output is 1 whatever it is.
    const double expected = i + 1 == curves.x.size() ? 0 : (1 - t * t) / m;
    EXPECT_NEAR(static_cast<double>(curves.gradient[i]), expected, 1e-5) << curves.x[i];
  }
}

TEST(QuantizerCurves, OfWhatIsntQuantizedAreStraight) {
  for (const std::string name : {"none", "sat"}) {
    const QuantizerCurves curves =
        sample_curves({.quantizer = name, .role = Role::activation, .bits = 32, .points = 5});
    EXPECT_EQ(curves.x, (std::vector<float>{-2, -1, 0, 1, 2}));
    EXPECT_EQ(curves.y, curves.x);
    EXPECT_EQ(curves.gradient, std::vector<float>(5, 1.0F));
  }
}

TEST(QuantizerCurves, NaturalRangeReachesBeyondTheClip) {
  const CurveRange range = natural_range({.quantizer = "sat", .role = Role::activation, .bits = 2});
  EXPECT_GT(range.high, 8);
  EXPECT_LT(range.high, 12);
  EXPECT_LT(range.low, 0);
  EXPECT_GT(range.low, -4);
  const CurveRange wide =
      natural_range({.quantizer = "sat", .role = Role::activation, .bits = 2, .options = {{"alpha", "12"}}});
  EXPECT_GT(wide.high, 12);
}

TEST(QuantizerCurves, RefuseWhatMakesNoSense) {
  CurveRequest request{.quantizer = "sat", .role = Role::weight, .range = CurveRange{1, 1}};
  EXPECT_THROW(sample_curves(request), ValueError);
  request.range = CurveRange{-1e300, 1e300};
  EXPECT_THROW(sample_curves(request), ValueError);
  request.range = CurveRange{-1, std::nan("")};
  EXPECT_THROW(sample_curves(request), ValueError);
  request.range = CurveRange{-1, 1};
  for (const std::int64_t points : {-1, 0, 1, 4002}) {
    request.points = points;
    EXPECT_THROW(sample_curves(request), ValueError);
  }
  EXPECT_THROW(sample_curves({.quantizer = "none", .role = Role::bias}), ValueError);
}

TEST(Explain, WritesPictureAndNumbers) {
  const TemporaryFolder folder;
  ExplainOptions options;
  options.quant = "sat,none";
  options.range = {-1, 1};
  options.points = 11;
  options.set = {{"activation.alpha", "0.5"}, {"scheme", "original"}};
  options.output = folder.file("a.svg");
  options.csv = folder.file("a.csv");
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_explain(options), 0);
  testing::internal::GetCapturedStdout();
  EXPECT_EQ(read_file(options.output).rfind("<svg ", 0), 0U);
  const std::string csv = read_file(options.csv);
  EXPECT_EQ(csv.rfind("quantizer,role,x,y,dy_dx,dy_dalpha\nsat,weight,-1,-1,", 0), 0U) << csv;
  EXPECT_NE(csv.find("\nsat,activation,1,0.5,0,1\n"), std::string::npos) << csv;
  EXPECT_NE(csv.find("\nnone,weight,1,1,1,\n"), std::string::npos) << csv;
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 4 * 11);

  options.output = options.csv = "";
  options.json = true;
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_explain(options), 0);
  const auto json = nlohmann::json::parse(testing::internal::GetCapturedStdout());
  ASSERT_EQ(json.size(), 4U);
  EXPECT_EQ(json[1]["quantizer"], "sat");
  EXPECT_EQ(json[1]["role"], "activation");
  EXPECT_EQ(json[1]["parameters"][0]["name"], "alpha");
  EXPECT_EQ(json[1]["parameters"][0]["dy"].size(), 11U);
}

void expect_refused(const ExplainOptions& options, const std::string& part) {
  try {
    run_explain(options);
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Explain, RefusesMistakes) {
  ExplainOptions options;
  options.quant = "sat";
  expect_refused(options, "[explain] nothing to write");
  options.json = true;
  options.set = {{"weight.schem", "original"}};
  expect_refused(
      options, "[explain] nothing that is drawn has an option 'weight.schem'; did you mean 'weight.scheme'?");
  options.set = {{"scheme", "x"}};
  expect_refused(options, "sat (weight)");
  options.set.clear();
  options.range = {2, 1};
  expect_refused(options, "[explain] empty range; got 2,1");
  options.range.clear();
  options.role = "bias";
  expect_refused(options, "[sat] doesn't quantize biases");
  options.quant = "sta";
  expect_refused(options, "did you mean 'sat'?");
}

TEST(QuantizerFigure, OneStackARole) {
  std::vector<QuantizerCurves> all;
  for (const Role role : {Role::weight, Role::activation})
    all.push_back(sample_curves({.quantizer = "sat", .role = role, .bits = 2, .points = 21}));
  const PlotFigure one = figure_of(all);
  ASSERT_EQ(one.stacks.size(), 2U);
  EXPECT_EQ(one.stacks[0].panels.size(), 2U);  // nothing is learned
  ASSERT_EQ(one.stacks[1].panels.size(), 3U);
  EXPECT_EQ(one.stacks[1].panels[2].series[0].label, "alpha = 8");
  // More than there are colours for.
  while (all.size() < 8) {
    all.push_back(all[0]);
    all.back().request.quantizer = std::to_string(all.size());
  }
  EXPECT_EQ(figure_of(all).stacks.size(), 8U);
}

}  // namespace
}  // namespace qtrain::cli
