// The recorded runs once more, started by the command lines of docs/reproducing.md.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/dispatch.h"
#include "tests/cli/temporary_folder.h"
#include "tests/tests_folder.h"

namespace qtrain::cli {
namespace {

const std::string folder = (testing_support::tests_folder() / "trajectory/").string();

struct Recipe {
  std::string name;
  std::string flags;
};

const std::string common = "--model resnet20 --data tensors:" + folder + "batches.safetensors --init " +
                           folder +
                           "init.safetensors --shuffle off --augment none --batch-size 32 --epochs 1 "
                           "--schedule constant ";
const std::string sat =
    "--nesterov on --quant sat --normalize raw --init-scale fc.weight=16 --lr 0.005 --weight-decay 4e-5 ";
const std::string cifar = "--normalize cifar --lr 0.05 --weight-decay 1e-4 ";
const std::string dsq = cifar + "--weight-decay-on all ";                  // ricky40403/DSQ
const std::string qtool = cifar + "--weight-decay-on all --nesterov on ";  // aim-uofa/model-quantization

const std::vector<Recipe> recipes = {
    {"fp32", qtool},
    {"sat_w4a4", sat + "--bits 4 --first-w-bits 4 --last-w-bits 4"},
    {"sat_w2a2_centered",
     sat + "--bits 2 --first-w-bits 2 --last-w-bits 2 --set weight.scheme=centered --set activation.alpha=3"},
    {"dsq_w4a4", dsq + "--quant dsq --bits 4"},
    {"dsq_w4a4_bounds", dsq + "--quant dsq --bits 4 --set weight.bounds=data --set activation.upper=4 "
                              "--set activation.lower=-1"},
    {"uniform_w8a8", dsq + "--quant uniform --bits 8"},
    {"lsq_w4a4", qtool + "--quant lsq --bits 4 --set weight.boundary=0.5 --set activation.boundary=4"},
    {"dorefa_pact_w3a3", qtool + "--quant pact --bits 3 --set activation.boundary=4"},
    {"lqnets_w2a2", qtool + "--quant lq-nets --bits 2"},
    {"xnor_w1a1",
     cifar + "--nesterov on --quant xnor --bits 1 --relu off --set activation.padding_after_quant=true"},
};

std::vector<std::string> words(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), {}};
}

// A CSV file's rows by the names of its columns.
std::vector<std::map<std::string, std::string>> read_csv(const std::string& path) {
  const auto split = [](const std::string& line) {
    std::vector<std::string> cells;
    std::istringstream stream(line);
    for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
    return cells;
  };
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const std::vector<std::string> names = split(line);
  std::vector<std::map<std::string, std::string>> rows;
  while (std::getline(file, line)) {
    const std::vector<std::string> cells = split(line);
    auto& row = rows.emplace_back();
    for (std::size_t i = 0; i < std::min(names.size(), cells.size()); ++i) row[names[i]] = cells[i];
  }
  return rows;
}

class TrajectoryCommand : public testing::TestWithParam<std::size_t> {};

TEST_P(TrajectoryCommand, ReproducesTheRecordedLosses) {
  const Recipe& recipe = recipes[GetParam()];
  std::ifstream file(folder + recipe.name + ".json");
  const auto recorded = nlohmann::json::parse(file);
  const TemporaryFolder run;
  std::ostringstream out;
  std::ostringstream err;
  testing::internal::CaptureStdout();
  const int status = dispatch(words(common + recipe.flags + " --output " + run.file("run")), {}, out, err);
  testing::internal::GetCapturedStdout();
  ASSERT_EQ(status, 0) << err.str();

  const auto steps = read_csv(run.file("run/steps.csv"));
  ASSERT_EQ(steps.size(), recorded.at("loss").size());
  double largest = 0;
  for (std::size_t k = 0; k < steps.size(); ++k) {
    const double share = std::abs(std::stod(steps[k].at("loss")) - recorded["loss"][k].get<double>()) /
                         recorded["tolerance"][k].get<double>();
    EXPECT_LE(share, 1) << "loss of step " << k + 1;
    largest = std::max(largest, share);
  }
  const auto epochs = read_csv(run.file("run/epochs.csv"));
  ASSERT_EQ(epochs.size(), 1U);
  const double reference = recorded.at("eval_loss");
  const double evaluated = std::stod(epochs[0].at("val_loss"));
  const double allowed = 5 * recorded.at("eval_loss_spread").get<double>() + 1e-4 * reference;
  EXPECT_LE(std::abs(evaluated - reference), allowed);
  fmt::print(
      "{:<18} losses {:.3f} of their tolerance, evaluation {:.6f} (recorded {:.6f}): {:.3f} of what is "
      "allowed\n",
      recipe.name, largest, evaluated, reference, std::abs(evaluated - reference) / allowed);
}

INSTANTIATE_TEST_SUITE_P(Recipes, TrajectoryCommand, testing::Range(std::size_t{0}, recipes.size()),
                         [](const auto& tested) { return recipes[tested.param].name; });

}  // namespace
}  // namespace qtrain::cli
