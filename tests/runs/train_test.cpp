// Whole runs: what they print, what they leave behind, and what eval makes of it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Train : public ::testing::Test {
 protected:
  Result run(const std::string& name, const Arguments& more) {
    Result result = qtrain(join({quick_run(data_, folder_ / name), more}));
    EXPECT_EQ(result.status, 0) << result.err;
    return result;
  }
  json evaluated(const Arguments& arguments) {
    const Result result = qtrain(join({{"eval", "--json"}, arguments}));
    EXPECT_EQ(result.status, 0) << result.err;
    return result.status == 0 ? json::parse(result.out) : json();
  }
  // The cells of the last row of a run's epochs.csv.
  std::vector<std::string> last_epoch(const std::string& name) {
    std::string row = timeless_rows(folder_ / (name + "/epochs.csv")).back();
    for (char& c : row)
      if (c == ',') c = '\n';
    return lines_of(row);
  }

  Folder folder_;
  std::string data_ = write_tensor_data(folder_ / "data.safetensors");
};

TEST_F(Train, LeavesAWholeRunFolderAndSaysWhatItDid) {
  const Result result = run("a", {"--epochs", "3", "--quant", "sat", "--log-interval", "2"});
  EXPECT_EQ(result.err, "");
  for (const char* part :
       {"resnet20, 4 classes", "sat 4 bits", "48 training and 16 validation images at 16x16",
        "epoch 2/3  step 4/6", "epoch 3/3: train loss", "% of it waiting for data", "result      top-1",
        "best top-1", "img/s", "smaller", "best.safetensors"})
    EXPECT_TRUE(has(result.out, part)) << part << "\n" << result.out;
  for (const char* name : {"config.toml", "steps.csv", "epochs.csv", "last.safetensors",
                           "previous.safetensors", "best.safetensors"})
    EXPECT_TRUE(fs::exists(folder_ / ("a/" + std::string(name)))) << name;
  std::size_t files = 0;
  bool events = false;
  for (const auto& entry : fs::directory_iterator(folder_ / "a")) {
    ++files;
    events = events || entry.path().filename().string().starts_with("events.out.tfevents.");
  }
  EXPECT_TRUE(events);
  EXPECT_EQ(files, 7U) << "nothing temporary stays";
  EXPECT_EQ(timeless_rows(folder_ / "a/steps.csv").size(), 1 + 18U);
  EXPECT_EQ(timeless_rows(folder_ / "a/epochs.csv").size(), 1 + 3U);
}

TEST_F(Train, EvalFindsWhatTheRunFound) {
  run("a", {"--epochs", "2", "--quant", "sat"});
  const auto cells = last_epoch("a");
  const json result = evaluated({"--checkpoint", folder_ / "a/last.safetensors", "--batch-size", "8"});
  EXPECT_EQ(result["loss"].get<double>(), std::stod(cells[4]));
  EXPECT_EQ(result["top1"].get<double>(), std::stod(cells[5]));
  EXPECT_EQ(result["top5"].get<double>(), std::stod(cells[6]));
  EXPECT_EQ(result["images"], 16);
  const Result text = qtrain({"eval", "--checkpoint", folder_ / "a"});
  EXPECT_EQ(text.status, 0);
  EXPECT_TRUE(has(text.out, "best.safetensors")) << text.out;
}

TEST_F(Train, Bf16LearnsEvaluatesAndResumesLikeAnyOther) {
  const Result result = run("a", {"--epochs", "8", "--quant", "sat", "--precision", "bf16"});
  EXPECT_TRUE(has(result.out, "cpu, bf16")) << result.out;
  const auto cells = last_epoch("a");
  EXPECT_GE(std::stod(cells[3]), 0.8) << "top-1 in training";
  const std::string last = folder_ / "a/last.safetensors";
  EXPECT_EQ(evaluated({"--checkpoint", last, "--batch-size", "8"})["loss"].get<double>(),
            std::stod(cells[4]));
  const double wide = evaluated({"--checkpoint", last, "--precision", "fp32"})["loss"].get<double>();
  EXPECT_NE(wide, std::stod(cells[4]));
  EXPECT_NEAR(wide, std::stod(cells[4]), 0.1);
  for (const auto& [name, tensor] : load_tensors(last)) EXPECT_NE(tensor.dtype(), DType::bf16) << name;
  run("b", {"--epochs", "8", "--quant", "sat", "--precision", "bf16", "--max-steps", "9"});
  const Result rest = qtrain({"--resume", folder_ / "b", "--max-steps", "0"});
  EXPECT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(timeless_rows(folder_ / "b/steps.csv"), timeless_rows(folder_ / "a/steps.csv"));
}

TEST_F(Train, LearnsWhatCanBeLearned) {
  run("a", {"--epochs", "6", "--eval-every", "0"});
  EXPECT_GE(std::stod(last_epoch("a")[5]), 0.9);
  EXPECT_TRUE(has(timeless_rows(folder_ / "a/epochs.csv")[1], ",,,,")) << "no evaluation but the last";
}

TEST_F(Train, TheSavedSettingsStartTheSameRunAgain) {
  run("a", {"--epochs", "1", "--quant", "sat", "--set", "weight.scheme=centered", "--augment", "cifar"});
  const Result again = qtrain({"--config", folder_ / "a/config.toml", "--output", folder_ / "b"});
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(timeless_rows(folder_ / "b/steps.csv"), timeless_rows(folder_ / "a/steps.csv"));
  EXPECT_EQ(read_text(folder_ / "b/config.toml"), read_text(folder_ / "a/config.toml"));
}

TEST_F(Train, InitTakesACheckpointIntoAFloatOrAQuantizedNetwork) {
  run("float", {"--epochs", "1"});
  const Result plain = run("same", {"--epochs", "0", "--init", folder_ / "float/last.safetensors"});
  EXPECT_EQ(evaluated({"--checkpoint", folder_ / "same"})["loss"],
            evaluated({"--checkpoint", folder_ / "float/last.safetensors"})["loss"]);
  EXPECT_FALSE(has(plain.out, "missing"));
  const Result quantized =
      run("quantized", {"--epochs", "1", "--quant", "sat", "--init", folder_ / "float/last.safetensors"});
  EXPECT_FALSE(has(quantized.out, "missing")) << "quantizers bring their own";
  const Result finer =
      run("finer", {"--epochs", "0", "--quant", "sat", "--init", folder_ / "quantized/last.safetensors"});
  EXPECT_FALSE(has(finer.out, "not in the network"));
  EXPECT_EQ(evaluated({"--checkpoint", folder_ / "finer"})["loss"],
            evaluated({"--checkpoint", folder_ / "quantized/last.safetensors"})["loss"]);
  const Result back = run("back", {"--epochs", "0", "--init", folder_ / "quantized/last.safetensors"});
  EXPECT_TRUE(has(back.out, "not in the network 2")) << back.out;
}

TEST_F(Train, InitScaleMultipliesATensor) {
  run("a", {"--epochs", "0"});
  run("b", {"--epochs", "0", "--init", folder_ / "a/last.safetensors", "--init-scale", "fc.weight=16"});
  const Tensor before = load_tensors(folder_ / "a/last.safetensors").at("model.fc.weight");
  const Tensor after = load_tensors(folder_ / "b/last.safetensors").at("model.fc.weight");
  for (std::size_t i = 0; i < before.values<float>().size(); ++i)
    ASSERT_EQ(after.values<float>()[i], 16 * before.values<float>()[i]);
}

TEST_F(Train, WeightDecayReachesWeightsOnlyUnlessTold) {
  run("weights", {"--epochs", "1", "--weight-decay", "0.5", "--max-steps", "1"});
  run("none", {"--epochs", "1", "--weight-decay", "0", "--max-steps", "1"});
  run("all", {"--epochs", "1", "--weight-decay", "0.5", "--weight-decay-on", "all", "--max-steps", "1"});
  const auto gamma = [&](const std::string& name, const char* tensor) {
    return load_tensors(folder_ / (name + "/last.safetensors")).at(tensor).values<float>();
  };
  EXPECT_EQ(gamma("weights", "model.bn1.weight"), gamma("none", "model.bn1.weight"));
  EXPECT_NE(gamma("weights", "model.bn1.weight"), gamma("all", "model.bn1.weight"));
  EXPECT_NE(gamma("weights", "model.conv1.weight"), gamma("none", "model.conv1.weight"));
  EXPECT_EQ(gamma("weights", "model.conv1.weight"), gamma("all", "model.conv1.weight"));
}

TEST_F(Train, MaxStepsEndsWithinAnEpochAndStillEvaluates) {
  const Result result = run("a", {"--epochs", "5", "--max-steps", "8"});
  EXPECT_TRUE(has(result.out, "result      top-1")) << result.out;
  EXPECT_EQ(timeless_rows(folder_ / "a/steps.csv").size(), 1 + 8U);
  EXPECT_EQ(timeless_rows(folder_ / "a/epochs.csv").back().substr(0, 4), "2,8,");
}

}  // namespace
}  // namespace qtrain::runs
