// The golden families, recorded from the reference implementations, and how `qtrain verify` reports on
// families that fail, can't be run or can't be read.
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "cli/commands.h"
#include "cli/golden_compare.h"
#include "engine/core/error.h"
#include "tests/cli/temporary_folder.h"

namespace qtrain::cli {
namespace {

using Outcome = CaseCheck::Outcome;

std::string golden(const std::string& name) {
  return std::string(QTRAIN_TESTS_FOLDER) + "/golden/" + name;
}

TEST(Golden, EveryCaseOfSatIsWithinTolerance) {
  const FamilyCheck check = check_family(load_golden_family(golden("sat.json")), Device{});
  EXPECT_EQ(check.cases.size(), 54U);
  for (const CaseCheck& one : check.cases) {
    EXPECT_EQ(one.outcome, Outcome::passed) << one.name << " " << one.reason;
    // The scalar math follows the reference's order of operations: far closer than required.
    for (const TensorCheck& tensor : one.tensors)
      EXPECT_LE(tensor.share(), 0.05) << one.name << " " << tensor.name;
  }
}

TEST(Golden, EveryFamilyOfTheFolderIsWithinTolerance) {
  std::size_t families = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden(""))) {
    if (entry.path().extension() != ".json") continue;
    ++families;
    const FamilyCheck check = check_family(load_golden_family(entry.path().string()), Device{});
    for (const CaseCheck& one : check.cases)
      EXPECT_EQ(one.outcome, Outcome::passed) << entry.path() << " " << one.name << " " << one.reason;
  }
  EXPECT_GE(families, 3U);
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

TEST(Golden, UnknownQuantizersRolesAndOptionsAreReportedAsNotRun) {
  GoldenFamily family = load_golden_family(golden("sat.json"));
  family.cases.resize(3);
  family.cases[0].role = "switch_bn";
  family.cases[1].options["levels"] = "5";
  const FamilyCheck check = check_family(family, Device{});
  EXPECT_EQ(check.count(Outcome::not_run), 2U);
  EXPECT_EQ(check.count(Outcome::passed), 1U);
  EXPECT_NE(check.cases[0].reason.find("switch_bn"), std::string::npos) << check.cases[0].reason;
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

TEST_F(GoldenFile, TheStatusIsOneWhenAnyFamilyFails) {
  VerifyOptions options;
  options.families = {write(family(good_)), golden("sat.json")};
  save_tensors(folder_.file("f.safetensors"),
               {{"c.x", Tensor::from_values({1}, {1.0F})}, {"c.y", Tensor::from_values({1}, {1.1F})}});
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_verify(options), 1);
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_NE(text.find("FAILED"), std::string::npos) << text;
  EXPECT_NE(text.find("54 of 54"), std::string::npos) << text;
  options.json = true;
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_verify(options), 1);
  EXPECT_NE(testing::internal::GetCapturedStdout().find(R"("outcome": "failed")"), std::string::npos);
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

}  // namespace
}  // namespace qtrain::cli
