// The golden families, recorded from the reference implementations, and how `qtrain verify` reports on
// families that fail, can't be run or can't be read.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/checkpoint.h"
#include "cli/commands.h"
#include "cli/golden_compare.h"
#include "engine/core/error.h"
#include "engine/optim/sgd.h"
#include "quant/registry.h"
#include "tests/cli/temporary_folder.h"
#include "tests/devices.h"
#include "tests/tests_folder.h"
#include "zoo/registry.h"

namespace qtrain::cli {
namespace {

using Outcome = CaseCheck::Outcome;

std::string golden(const std::string& name) {
  return (testing_support::tests_folder() / "golden" / name).string();
}

std::vector<std::string> all_families() {
  std::vector<std::string> names;
  for (const std::string& file : golden_files({golden("")}))
    names.push_back(std::filesystem::path(file).stem().string());
  return names;
}

class GoldenFamilies : public testing_support::OnDevice<std::string> {};

// Roles of training runs and searches, which single passes of quantizers don't cover.
const std::set<std::string> roles_without_runner = {"joint", "kl", "search", "size"};

TEST_P(GoldenFamilies, EveryCaseIsWithinTolerance) {
  const FamilyCheck check = check_family(load_golden_family(golden(case_ + ".json")), device_);
  EXPECT_GT(check.count(Outcome::passed), 0U);
  for (const CaseCheck& one : check.cases) {
    if (one.outcome == Outcome::not_run && roles_without_runner.contains(one.role)) continue;
    EXPECT_EQ(one.outcome, Outcome::passed) << one.name << " " << one.reason;
  }
}

INSTANTIATE_TEST_SUITE_P(Folder, GoldenFamilies, testing_support::on_devices(all_families()),
                         testing_support::device_test_name);

TEST(Golden, RolesOfAfpAndAdabits) {
  std::map<std::string, std::size_t> passed;
  for (const char* name : {"afp.json", "adabits.json"})
    for (const CaseCheck& one : check_family(load_golden_family(golden(name)), Device{}).cases) {
      if (one.outcome == Outcome::passed) ++passed[one.role];
      const std::size_t least = one.role == "switch_bn" ? 6 : (one.role == "layer" ? 4 : 0);
      EXPECT_GE(one.tensors.size(), least) << one.name;
    }
  const std::map<std::string, std::size_t> expected = {
      {"weight", 12}, {"levels", 6}, {"scalar", 1}, {"layer", 13}, {"switch_bn", 7}};
  EXPECT_EQ(passed, expected);
}

TEST(Golden, SwitchableBatchNormCasesThatDontFitAreStopped) {
  GoldenFamily family = load_golden_family(golden("adabits.json"));
  std::erase_if(family.cases, [](const GoldenCase& one) { return !one.name.starts_with("bn_train"); });
  ASSERT_EQ(family.cases.size(), 4U);
  family.cases[0].options["switchbn"] = "false";  // 8 bits have the first entry anyway
  family.cases[1].options["bits_list"] = "8,6";
  family.cases[2].options["bits_list"] = "8,6,5,five";
  family.cases[3].tensors["x"] = Tensor::full({3}, 1);
  const FamilyCheck check = check_family(family, Device{});
  EXPECT_EQ(check.cases[0].outcome, Outcome::passed) << check.cases[0].reason;
  EXPECT_NE(check.cases[1].reason.find("4, 4"), std::string::npos) << check.cases[1].reason;
  EXPECT_NE(check.cases[2].reason.find("five"), std::string::npos) << check.cases[2].reason;
  EXPECT_NE(check.cases[3].reason.find("no channels"), std::string::npos) << check.cases[3].reason;
  EXPECT_EQ(check.count(Outcome::stopped), 3U);
}

// Where the scalar math follows the reference's order of operations it is far closer than required.
TEST(Golden, SatAndLsqUseASmallShareOfTheTolerance) {
  for (const auto& [name, cases] : std::map<std::string, std::size_t>{{"sat", 54}, {"lsq", 33}}) {
    const FamilyCheck check = check_family(load_golden_family(golden(name + ".json")), Device{});
    EXPECT_EQ(check.cases.size(), cases);
    for (const CaseCheck& one : check.cases)
      for (const TensorCheck& tensor : one.tensors)
        EXPECT_LE(tensor.share(), 0.05) << one.name << " " << tensor.name;
  }
}

// What a case says is off need not exist; what it says is on does.
TEST(Golden, OptionsThatAreOffNeedNotBeDeclared) {
  GoldenFamily family = load_golden_family(golden("sat.json"));
  family.cases.resize(2);
  family.cases[0].options["adaptive"] = "none";
  family.cases[0].options["restore"] = "false";
  family.cases[1].options["restore"] = "true";
  const FamilyCheck check = check_family(family, Device{});
  EXPECT_EQ(check.cases[0].outcome, Outcome::passed) << check.cases[0].reason;
  EXPECT_EQ(check.cases[1].outcome, Outcome::stopped);
}

// A parameter that a forward moves is reported; the others aren't.
TEST(Golden, ParametersAfterTheForwardAreCompared) {
  GoldenFamily family = load_golden_family(golden("lsq.json"));
  std::erase_if(family.cases,
                [](const GoldenCase& one) { return !one.tensors.contains("param_after.clip"); });
  EXPECT_EQ(family.cases.size(), 2U);
  for (GoldenCase& one : family.cases) {
    one.tensors["param_after.clip"] = Tensor::full({1}, 3);
    one.options["correlate"] = "1";
  }
  const FamilyCheck check = check_family(family, Device{});
  EXPECT_EQ(check.count(Outcome::failed), 2U);
  family.cases[0].options["stable"] = "0";
  EXPECT_EQ(check_family(family, Device{}).cases[0].tensors.size(), check.cases[0].tensors.size());
}

// Grids of fixed and of learned numbers.
TEST(Golden, GridQuantizersUseASmallShareOfTheTolerance) {
  const std::map<std::string, std::size_t> expected = {
      {"fixed-point", 7}, {"pow2", 6}, {"mixed-uniform", 21}, {"mixed-pow2", 17}};
  for (const auto& [name, count] : expected) {
    const FamilyCheck check = check_family(load_golden_family(golden(name + ".json")), Device{});
    EXPECT_EQ(check.count(Outcome::passed), count) << name;
    for (const CaseCheck& one : check.cases)
      for (const TensorCheck& tensor : one.tensors)
        EXPECT_LE(tensor.share(), 0.06) << one.name << " " << tensor.name;
  }
}

TEST(Golden, RolesHaveTheTensorsTheyShould) {
  const FamilyCheck check = check_family(load_golden_family(golden("sat.json")), Device{});
  std::map<std::string, std::size_t> tensors;
  for (const CaseCheck& one : check.cases) tensors[one.role] += one.tensors.size();
  EXPECT_EQ(tensors["weight"], 27U * 2);
  EXPECT_EQ(tensors["activation"], 14U * 3);
  EXPECT_EQ(tensors["layer"], 13U * 5 - 2);  // two of the layers have no bias
}

// Each reference moved by twice its tolerance in one element.
// What a projection needs and a case may lack ends that case, not the run.
TEST(Golden, AProjectionWithoutItsOptionsOrNumbersStops) {
  for (const std::string defect : {"what", "of", "numbers"}) {
    GoldenFamily family = load_golden_family(golden("mixed-uniform.json"));
    std::erase_if(family.cases, [](const GoldenCase& one) { return one.name != "project_w_d_xmax"; });
    ASSERT_EQ(family.cases.size(), 1U);
    GoldenCase& one = family.cases[0];
    one.options.erase(defect);
    if (defect == "numbers") one.tensors["param.xmax"] = Tensor::full({1}, 1);
    const FamilyCheck check = check_family(family, Device{});
    EXPECT_EQ(check.count(Outcome::stopped), 1U) << defect;
    EXPECT_NE(check.cases[0].reason.find(defect == "numbers" ? "param.xmax" : defect), std::string::npos)
        << check.cases[0].reason;
  }
}

TEST(Golden, APerturbedReferenceFails) {
  const GoldenFamily family = load_golden_family(golden("sat.json"));
  for (const char* tensor : {"y", "grad_x", "grad.alpha", "grad.weight", "grad.bias"}) {
    GoldenFamily perturbed = family;
    std::size_t changed = 0;
    for (GoldenCase& one : perturbed.cases) {
      const auto found = one.tensors.find(tensor);
      if (found == one.tensors.end()) continue;
      ++changed;
      std::vector<float> values = found->second.values();
      const double tolerance = check_tensor(tensor, found->second, found->second).tolerance;
      values[values.size() / 2] += static_cast<float>(2.1 * tolerance);
      found->second = Tensor::from_values(found->second.shape(), values);
    }
    const FamilyCheck check = check_family(perturbed, Device{});
    EXPECT_GT(changed, 0U) << tensor;
    EXPECT_EQ(check.count(Outcome::failed), changed) << tensor;
    EXPECT_FALSE(check.passes());
  }
}

TEST(Golden, ToleranceFollowsTheLargestReference) {
  const Tensor reference = Tensor::from_values({3}, {0.0F, -4.0F, 2.0F});
  EXPECT_DOUBLE_EQ(check_tensor("y", reference, reference).tolerance, 1e-5 + 4e-4);
  EXPECT_DOUBLE_EQ(check_tensor("grad_x", reference, reference).tolerance, 1e-5 + 4e-4);
  EXPECT_DOUBLE_EQ(check_tensor("grad.alpha", reference, reference).tolerance, 2e-5 + 8e-4);
}

TEST(Golden, WhatCantBeComparedIsOutOfTolerance) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor finite = Tensor::from_values({2}, {1.0F, 2.0F});
  EXPECT_FALSE(check_tensor("y", Tensor(), finite).passes());
  EXPECT_FALSE(check_tensor("y", Tensor::from_values({1}, {1.0F}), finite).passes());
  EXPECT_FALSE(check_tensor("y", Tensor::from_values({1, 2}, {1.0F, 2.0F}), finite).passes());
  EXPECT_FALSE(check_tensor("y", Tensor::from_values({2}, {1.0F, nan}), finite).passes());
  EXPECT_FALSE(check_tensor("y", Tensor::from_values({2}, {1.0F, inf}), finite).passes());
  const Tensor special = Tensor::from_values({2}, {nan, inf});
  EXPECT_FALSE(check_tensor("y", finite, special).passes());
  EXPECT_TRUE(check_tensor("y", special, special).passes());
}

TEST(Golden, UnknownQuantizersAndRolesAreNotRunAndErrorsStop) {
  GoldenFamily family = load_golden_family(golden("sat.json"));
  family.cases.resize(3);
  family.cases[0].role = "rotation";
  family.cases[1].options["levels"] = "5";
  const FamilyCheck check = check_family(family, Device{});
  EXPECT_EQ(check.count(Outcome::not_run), 1U);
  EXPECT_EQ(check.count(Outcome::stopped), 1U);
  EXPECT_EQ(check.count(Outcome::passed), 1U);
  EXPECT_NE(check.cases[0].reason.find("rotation"), std::string::npos) << check.cases[0].reason;
  EXPECT_NE(check.cases[1].reason.find("levels"), std::string::npos) << check.cases[1].reason;
  EXPECT_FALSE(check.passes());
  family.quantizer = "saturn";
  EXPECT_EQ(check_family(family, Device{}).count(Outcome::not_run), 3U);
}

class GoldenFile : public testing::Test {
 protected:
  // A family of one case with the given JSON and the tensors x and y.
  std::string write(const std::string& json) {
    write_file(folder_.file("f.json"), json);
    const Tensor values = Tensor::from_values({2}, {0.5F, -1.0F});
    save_tensors(folder_.file("f.safetensors"), {{"c.x", values}, {"c.y", values}});
    return folder_.file("f.json");
  }
  static std::string family(const std::string& one_case) {
    return R"({"quantizer": "none", "source": "", "cases": [)" + one_case + "]}";
  }
  void expect_malformed(const std::string& json, const std::string& part) {
    try {
      load_golden_family(write(json));
      ADD_FAILURE() << json;
    } catch (const FormatError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(part), std::string::npos) << message;
      EXPECT_NE(message.find("f.json"), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
  const std::string good_ =
      R"({"name": "c", "role": "weight", "bits": 4, "options": {}, "training": true, "tensors": ["x", "y"], "note": ""})";
  TemporaryFolder folder_;
};

TEST_F(GoldenFile, AGoodOneRuns) {
  EXPECT_TRUE(check_family(load_golden_family(write(family(good_))), Device{}).passes());
  VerifyOptions options;
  options.families = {folder_.file("f.json")};
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_verify(options), 0);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("1 of 1 cases within tolerance"), std::string::npos);
}

// The report of `qtrain verify` and its exit status.
struct Report {
  int status = 0;
  std::string text;
  bool has(const std::string& part) const { return text.find(part) != std::string::npos; }
};
Report verify(const VerifyOptions& options) {
  Report report;
  testing::internal::CaptureStdout();
  report.status = run_verify(options);
  report.text = testing::internal::GetCapturedStdout();
  return report;
}

TEST_F(GoldenFile, TheStatusIsOneWhenAnyFamilyFails) {
  VerifyOptions options;
  options.families = {write(family(good_)), golden("sat.json")};
  save_tensors(folder_.file("f.safetensors"),
               {{"c.x", Tensor::from_values({1}, {1.0F})}, {"c.y", Tensor::from_values({1}, {1.1F})}});
  const Report report = verify(options);
  EXPECT_EQ(report.status, 1);
  EXPECT_TRUE(report.has("  failed   c  y 1.0e-01 > 1.2e-04\n")) << report.text;
  EXPECT_TRUE(report.has("54 of 54")) << report.text;
  EXPECT_TRUE(report.has("54 of 55 cases within tolerance, 1 out of tolerance\n")) << report.text;
  EXPECT_FALSE(report.has("w_conv_modified_b4  ")) << report.text;  // only with --cases
  options.cases = true;
  EXPECT_TRUE(verify(options).has("  passed   w_conv_modified_b4 ")) << verify(options).text;
  options.json = true;
  const Report json = verify(options);
  EXPECT_EQ(json.status, 1);
  const auto parsed = nlohmann::json::parse(json.text);
  EXPECT_EQ(parsed["families"][0]["cases"][0]["outcome"], "failed");
  EXPECT_EQ(parsed["families"][1]["passed"], 54);
  EXPECT_EQ(parsed["total"]["failed"], 1);
  EXPECT_EQ(parsed["total"]["cases"], 55);
}

TEST_F(GoldenFile, AnErrorInACaseIsStatusOneToo) {
  std::string text = good_;
  text.replace(text.find(R"("options": {})"), 13, R"("options": {"depth": 3})");
  VerifyOptions options;
  options.families = {write(family(text))};
  const Report report = verify(options);
  EXPECT_EQ(report.status, 1);
  EXPECT_TRUE(report.has("  stopped  c  [none (weight)] unknown option 'depth'")) << report.text;
  EXPECT_TRUE(report.has("0 of 1 cases within tolerance, 1 stopped by errors\n")) << report.text;
}

TEST_F(GoldenFile, WhatNothingRunsIsNamedAndNotCountedAsPassed) {
  std::string other = good_;
  other.replace(other.find("\"c\""), 3, "\"d\"").replace(other.find("weight"), 6, "rotation");
  const std::string path = write(family(good_ + "," + other));
  const Tensor values = Tensor::from_values({2}, {0.5F, -1.0F});
  save_tensors(folder_.file("f.safetensors"),
               {{"c.x", values}, {"c.y", values}, {"d.x", values}, {"d.y", values}});
  std::string unknown = family(good_);
  unknown.replace(unknown.find("none"), 4, "saturn");
  write_file(folder_.file("g.json"), unknown);
  std::filesystem::copy_file(folder_.file("f.safetensors"), folder_.file("g.safetensors"));
  VerifyOptions options;
  options.families = {folder_.path()};  // both files of the folder
  const Report report = verify(options);
  EXPECT_EQ(report.status, 3);
  EXPECT_TRUE(report.has("  1 not run: cases of role 'rotation' can't be run by this version\n"))
      << report.text;
  EXPECT_TRUE(report.has("  1 not run: there is no quantizer 'saturn'\n")) << report.text;
  EXPECT_TRUE(report.has("1 of 3 cases within tolerance, 2 not run\n")) << report.text;
  EXPECT_NE(report.text.find("f.json"), std::string::npos);
  EXPECT_LT(report.text.find("f.json"), report.text.find("g.json"));
  options.json = true;
  const auto parsed = nlohmann::json::parse(verify(options).text);
  EXPECT_EQ(parsed["total"]["not_run"], 2);
  EXPECT_EQ(parsed["families"][0]["cases"][1]["outcome"], "not run");
  options.families = {path, golden("sat.json"), "nothing.json"};
  EXPECT_THROW(verify(options), IoError);
  testing::internal::GetCapturedStdout();
}

TEST_F(GoldenFile, AFolderWithoutFamiliesIsRefused) {
  VerifyOptions options;
  options.families = {folder_.path()};
  EXPECT_THROW(run_verify(options), ValueError);
}

TEST_F(GoldenFile, MalformedOnesAreRefusedInOneLine) {
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good_;
    text.replace(text.find(from), from.size(), to);
    return family(text);
  };
  expect_malformed("", "broken JSON");
  expect_malformed(family(good_).substr(0, 60), "broken JSON");
  expect_malformed("[]", "not an object");
  expect_malformed(R"({"cases": []})", "quantizer");
  expect_malformed(R"({"quantizer": 3, "cases": []})", "quantizer");
  expect_malformed(R"({"quantizer": "sat", "cases": {}})", "cases");
  expect_malformed(family(""), "no cases");
  expect_malformed(family("7"), "cases[0]");
  expect_malformed(family(good_ + "," + good_), "two cases");
  expect_malformed(with(R"("name": "c", )", ""), "name");
  expect_malformed(with(R"("bits": 4)", R"("bits": "four")"), "bits");
  expect_malformed(with(R"("bits": 4)", R"("bits": 1e300)"), "bits");
  expect_malformed(with(R"("bits": 4)", R"("bits": -1)"), "bits");
  expect_malformed(with(R"("training": true)", R"("training": 1)"), "training");
  expect_malformed(with(R"("options": {})", R"("options": [])"), "options");
  expect_malformed(with(R"(["x", "y"])", R"(["x", 5])"), "tensor");
  expect_malformed(with(R"(["x", "y"])", R"(["x", "y", "grad_x"])"), "grad_x");
}

TEST_F(GoldenFile, MissingFilesAreRefused) {
  EXPECT_THROW(load_golden_family(folder_.file("nothing.json")), IoError);
  EXPECT_THROW(load_golden_family(folder_.path()), ValueError);
  EXPECT_THROW(load_golden_family(golden("sat.safetensors")), ValueError);
  const std::string alone = write(family(good_));
  std::filesystem::remove(folder_.file("f.safetensors"));
  EXPECT_THROW(load_golden_family(alone), IoError);
  write_file(folder_.file("f.safetensors"), "not tensors");
  EXPECT_THROW(load_golden_family(alone), FormatError);
}

// --- qtrain apply
// -----------------------------------------------------------------------------------------------

class Apply : public GoldenFile {
 protected:
  TensorMap apply(const TensorMap& input, const ApplyOptions& settings) {
    ApplyOptions options = settings;
    options.input = folder_.file("in.safetensors");
    options.output = folder_.file("out.safetensors");
    save_tensors(options.input, input);
    testing::internal::CaptureStdout();
    const auto done = [] { testing::internal::GetCapturedStdout(); };
    try {
      EXPECT_EQ(run_apply(options), 0);
    } catch (...) {
      done();
      throw;
    }
    done();
    return load_tensors(options.output);
  }
};

TEST_F(Apply, ReproducesAGoldenCaseThroughFiles) {
  const GoldenFamily family = load_golden_family(golden("sat.json"));
  const auto one = std::find_if(family.cases.begin(), family.cases.end(),
                                [](const GoldenCase& c) { return c.name == "a_double_original_b4"; });
  TensorMap input;
  for (const char* name : {"x", "grad_y", "param.alpha"}) input[name] = one->tensors.at(name);
  ApplyOptions options;
  options.quant = "sat";
  options.role = "activation";
  options.set = {{"double_side", "true"}};
  const TensorMap output = apply(input, options);
  EXPECT_EQ(output.size(), 3U);
  for (const char* name : {"y", "grad_x", "grad.alpha"})
    EXPECT_TRUE(check_tensor(name, output.at(name), one->tensors.at(name)).passes()) << name;
}

TEST_F(Apply, WithoutGradYGivesOnlyY) {
  ApplyOptions options;
  options.quant = "sat";
  const TensorMap output = apply({{"x", Tensor::from_values({2, 2}, {0.5F, -1.0F, 0.25F, 0.0F})}}, options);
  EXPECT_EQ(output.size(), 1U);
  EXPECT_TRUE(output.contains("y"));
}

TEST_F(Apply, TrainingAndEvaluationDifferWhereTheQuantizerSaysSo) {
  const Tensor x = Tensor::from_values({2, 2}, {0.5F, -1.0F, 0.25F, 0.0F});
  ApplyOptions options;
  options.quant = "sat";  // a linear layer's weights are rescaled in training only
  const std::vector<float> training = apply({{"x", x}}, options).at("y").values();
  options.training = false;
  EXPECT_NE(apply({{"x", x}}, options).at("y").values(), training);
}

TEST_F(Apply, PassesGradientsThroughWhereNothingIsQuantized) {
  const Tensor x = Tensor::from_values({2}, {0.5F, -1.0F});
  const Tensor g = Tensor::from_values({2}, {3.0F, 4.0F});
  ApplyOptions options;
  options.quant = "none";
  EXPECT_EQ(apply({{"x", x}, {"grad_y", g}}, options).at("grad_x").values(), g.values());
  options.quant = "sat";
  options.role = "activation";
  options.bits = 32;
  const TensorMap output = apply({{"x", x}, {"grad_y", g}}, options);
  EXPECT_EQ(output.at("grad_x").values(), g.values());
  EXPECT_EQ(output.at("grad.alpha").values(), std::vector<float>{0});
}

TEST_F(Apply, RefusesFilesThatDontFit) {
  const Tensor x = Tensor::from_values({2}, {0.5F, -1.0F});
  ApplyOptions options;
  options.quant = "sat";
  options.role = "activation";
  EXPECT_THROW(apply({{"y", x}}, options), FormatError);
  EXPECT_THROW(apply({{"x", x}, {"z", x}}, options), FormatError);
  EXPECT_THROW(apply({{"x", x}, {"param.beta", x}}, options), FormatError);
  EXPECT_THROW(apply({{"x", x}, {"param.alpha", x}}, options), ValueError);
  EXPECT_THROW(apply({{"x", x}, {"state.alpha", x}}, options), FormatError);
  EXPECT_THROW(apply({{"x", x}, {"grad_y", Tensor::from_values({1}, {1.0F})}}, options), ShapeError);
  const std::vector<std::int64_t> whole{1, 2};
  EXPECT_THROW(apply({{"x", Tensor::from_values<std::int64_t>({2}, whole)}}, options), DTypeError);
  options.quant = "saturn";
  EXPECT_THROW(apply({{"x", x}}, options), ValueError);
}

// --- qtrain apply --network
// -----------------------------------------------------------------------------------------------

class ApplyNetwork : public Apply {
 protected:
  ApplyNetwork() {
    options_.quant = "afp";
    options_.network = true;
    options_.input = folder_.file("in.safetensors");
    options_.output = folder_.file("out.safetensors");
  }
  std::string run() {
    testing::internal::CaptureStdout();
    try {
      EXPECT_EQ(run_apply(options_), 0);
    } catch (...) {
      testing::internal::GetCapturedStdout();
      throw;
    }
    return testing::internal::GetCapturedStdout();
  }
  std::string checkpoint_of(const TrainOptions& settings) {
    const auto network = zoo::make_model("resnet20", {.num_classes = 2});
    const SGD sgd({{.parameters = network->named_parameters()}}, {});
    write_checkpoint(options_.input, *network, sgd, settings, {}, {"a", "b"});
    return options_.input;
  }
  ApplyOptions options_;
};

TEST_F(ApplyNetwork, OverwritesWeightsAndCopiesTheRest) {
  const Tensor weight = Tensor::from_values({2, 2, 1, 1}, {1.5F, -0.7F, 0.2F, 0.01F});
  const Tensor alpha = Tensor::from_values({1, 2}, {0.7F, 0.3F});
  save_tensors(options_.input, {{"conv.weight", weight},
                                {"conv.bias", Tensor::from_values({2}, {0.7F, 0.3F})},
                                {"fc.weight", Tensor::from_values({1, 2}, {1, 0.7F})},
                                {"fc.input_quantizer.clip", alpha}});
  EXPECT_EQ(run(), "2 tensors quantized, 2 copied\n");
  const TensorMap after = load_tensors(options_.output);
  EXPECT_EQ(after.size(), 4U);
  EXPECT_EQ(after.at("conv.weight").values(), (std::vector<float>{1.5F, -0.75F, 0.1875F, 0}));
  EXPECT_EQ(after.at("fc.weight").values(), (std::vector<float>{1, 0.75F}));
  EXPECT_EQ(after.at("conv.bias").values(), (std::vector<float>{0.7F, 0.3F}));
  EXPECT_EQ(after.at("fc.input_quantizer.clip").values(), alpha.values());
}

TEST_F(ApplyNetwork, ACheckpointStaysOneThatCanBeEvaluated) {
  TrainOptions settings;
  settings.model = "resnet20";
  checkpoint_of(settings);
  EXPECT_EQ(run().substr(0, 20), "22 tensors quantized");
  const Checkpoint after = read_checkpoint(options_.output);
  EXPECT_EQ(after.class_names, (std::vector<std::string>{"a", "b"}));
  const auto network = zoo::make_model("resnet20", {.num_classes = 2, .seed = 5});
  restore_network(after, *network);
  const auto afp = quant::make_quantizer("afp", quant::Role::weight, 4, quant::LayerKind::convolution);
  for (const NamedTensor& p : network->named_parameters())
    if (p.tensor.rank() >= 2) {
      EXPECT_EQ(afp->forward(p.tensor).values(), p.tensor.values()) << p.name;
    }
  for (const TensorEntry& entry : after.file.entries()) EXPECT_TRUE(entry.name.starts_with("model."));
}

TEST_F(ApplyNetwork, RefusesWhatMakesNoSense) {
  TrainOptions settings;
  settings.model = "resnet20";
  settings.quant = "sat";
  checkpoint_of(settings);
  EXPECT_THROW(run(), ValueError);  // evaluation would quantize again
  save_tensors(options_.input, {{"bias", Tensor::from_values({2}, {0.7F, 0.3F})}});
  EXPECT_THROW(run(), ValueError);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  save_tensors(options_.input, {{"weight", Tensor::from_values({1, 2}, {0.7F, nan})}});
  EXPECT_THROW(run(), ValueError);
  save_tensors(options_.input, {{"weight", Tensor::from_values({1, 2}, {0.7F, 0.3F})}});
  options_.bits = 2;
  EXPECT_THROW(run(), ValueError);
  options_.bits = 4;
  options_.role = "activation";
  EXPECT_THROW(run(), ValueError);
  EXPECT_FALSE(std::filesystem::exists(options_.output));
}

}  // namespace
}  // namespace qtrain::cli
