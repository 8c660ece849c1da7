// Short training runs recorded from the original public code (AdaBits, QTool; PyTorch 1.13, CPU), reproduced
// step by step: a CIFAR ResNet-20, 12 updates on 12 batches of 32. Low-bit training is chaotic: a different
// order of summation moves some value over a rounding boundary, and everything after it changes. Each recipe
// therefore holds `spread`: how far the reference itself moves when its initial weights move by a factor of 1
// + 1e-6 N(0,1). The measures here are shares of what is allowed:
//   loss of a step      tolerance = 5 * (largest spread up to the step), at least 1e-4
//   sums and L2 norms   10 * (larger of the two numbers' spreads) + 1e-4 * norm; fp32 and sat 5 *
// A correct implementation needs about half of it. The spread is that of any other order of summation, so
// every device is held to the same.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/io/tensor_file.h"
#include "engine/ops/loss.h"
#include "engine/optim/sgd.h"
#include "quant/wrap.h"
#include "tests/devices.h"
#include "tests/tests_folder.h"
#include "zoo/registry.h"

namespace qtrain {
namespace {

using Json = nlohmann::json;

constexpr std::size_t batch_size = 32;
constexpr double allowed_spreads = 5;

std::string file(const std::string& name) {
  return (testing_support::tests_folder() / "trajectory" / name).string();
}

Json read_recipe(const std::string& name) {
  std::ifstream stream(file(name + ".json"));
  return Json::parse(stream);
}

// --- the recipe's network, batches and update rule
// ---------------------------------------------------------------

using Texts = std::map<std::string, std::string>;

// What a quantizer's recipes have beside the settings that are its options: how the first and the last layer
// are treated where it isn't the quantizer's own rule, which network it is, and what decays.
struct RecipeRules {
  Texts activation_options = {};
  quant::EdgeTreatment first = quant::EdgeTreatment::automatic;
  quant::EdgeTreatment last = quant::EdgeTreatment::automatic;
  bool relu = true;
  bool decays_weights_only = false;
  double allowed_spreads = 10;  // of sums and norms
};

RecipeRules rules_of(const Json& recipe) {
  static const std::map<std::string, RecipeRules> particular = {
      {"sat",
       {.first = quant::EdgeTreatment::weight_only,
        .last = quant::EdgeTreatment::full,
        .decays_weights_only = true,
        .allowed_spreads = 5}},
      {"none", {.allowed_spreads = 5}},
      {"xnor",
       {.activation_options = {{"padding_after_quant", "true"}}, .relu = false, .decays_weights_only = true}},
  };
  const auto found = particular.find(recipe.at("quantizer"));
  return found == particular.end() ? RecipeRules() : found->second;
}

// The settings of a role that are options of its quantizer, beside `options`.
Texts options_from(const std::string& quantizer, quant::Role role, const Json& settings, Texts options = {}) {
  for (const quant::OptionSpec& spec : quant::find_quantizer(quantizer).options(role))
    if (settings.contains(spec.name) && settings.at(spec.name) != "output channels") {  // the default anyway
      const Json& value = settings.at(spec.name);
      options[spec.name] = value.is_string() ? value.get<std::string>() : value.dump();
    }
  return options;
}

quant::WrapOptions wrap_options(const Json& recipe) {
  const Json& weight = recipe.at("settings").at("weight");
  const Json& activation = recipe.at("settings").at("activation");
  const RecipeRules rules = rules_of(recipe);
  quant::WrapOptions options;
  options.weight_quantizer = options.activation_quantizer = recipe.at("quantizer");
  options.weight_bits = weight.at("bits");
  options.activation_bits = activation.at("bits");
  options.weight_options = options_from(options.weight_quantizer, quant::Role::weight, weight);
  options.activation_options = options_from(options.activation_quantizer, quant::Role::activation, activation,
                                            rules.activation_options);
  options.first.treatment = rules.first;
  options.last.treatment = rules.last;
  return options;
}

// One number: all elements; a list: the elements; rows and columns: row r holds rows[r] in every column.
Tensor initial_tensor(const Shape& shape, const Json& value) {
  if (value.is_number()) return Tensor::full(shape, value.get<float>());
  if (value.is_array()) return Tensor::from_values(shape, value.get<std::vector<float>>());
  std::vector<float> elements;
  for (const Json& row : value.at("rows"))
    elements.insert(elements.end(), value.at("columns").get<std::size_t>(), row.get<float>());
  return Tensor::from_values(shape, elements);
}

std::shared_ptr<Module> make_network(const Json& recipe, Device device) {
  auto network = zoo::make_model("resnet20", {.relu = rules_of(recipe).relu, .initialize = false});
  network->load_state_dict(to_named_tensors(load_tensors(file("init.safetensors"))));
  if (recipe.at("quantizer") != "none") quant::quantize_network(*network, wrap_options(recipe));
  NamedTensors initial;
  for (const NamedTensor& t : network->state_dict()) {
    if (recipe.contains("quantizer_initial") && recipe["quantizer_initial"].contains(t.name))
      initial.push_back({t.name, initial_tensor(t.tensor.shape(), recipe["quantizer_initial"][t.name])});
    if (recipe.contains("initial_scale") && recipe["initial_scale"].contains(t.name)) {
      std::vector<float> values = t.tensor.values();
      for (float& v : values) v *= recipe["initial_scale"][t.name].get<float>();
      initial.push_back({t.name, Tensor::from_values(t.tensor.shape(), values)});
    }
  }
  network->load_state_dict(initial, false);
  network->to(device);
  return network;
}

struct TrainingBatch {
  Tensor images;
  Tensor labels;
};

std::vector<TrainingBatch> read_batches(const Json& recipe, Device device) {
  const TensorMap tensors = load_tensors(file("batches.safetensors"));
  const std::vector<std::uint8_t> pixels = tensors.at("images").values<std::uint8_t>();
  const std::vector<std::int64_t> labels = tensors.at("labels").values<std::int64_t>();
  const Json& input = recipe.at("input");
  constexpr std::size_t plane = 1024;
  constexpr std::size_t batch_pixels = batch_size * 3 * plane;
  std::vector<TrainingBatch> batches;
  for (std::size_t first = 0; first < labels.size(); first += batch_size) {
    std::vector<float> values(batch_pixels);
    for (std::size_t i = 0; i < batch_pixels; ++i) {
      const auto pixel = static_cast<float>(pixels[first * 3 * plane + i]);
      const std::size_t channel = i / plane % 3;
      values[i] = input.at("mean").is_null() ? pixel
                                             : (pixel / 255.0F - input["mean"][channel].get<float>()) /
                                                   input["std"][channel].get<float>();
    }
    batches.push_back({Tensor::from_values({batch_size, 3, 32, 32}, values, device),
                       Tensor::from_values<std::int64_t>(
                           {batch_size}, std::span(labels).subspan(first, batch_size), device)});
  }
  return batches;
}

SGD make_optimizer(Module& network, const Json& recipe) {
  const Json& settings = recipe.at("optimizer");
  ParameterGroup decayed{.parameters = {}, .weight_decay = settings.at("weight_decay")};
  ParameterGroup plain;
  const bool weights_only = rules_of(recipe).decays_weights_only;
  for (const NamedTensor& p : network.named_parameters())
    (weights_only && p.tensor.rank() < 2 ? plain : decayed).parameters.push_back(p);
  std::vector<ParameterGroup> groups{decayed};
  if (!plain.parameters.empty()) groups.push_back(plain);
  return SGD(groups, {.learning_rate = recipe.at("lr")[0],
                      .momentum = settings.at("momentum"),
                      .dampening = settings.at("dampening"),
                      .nesterov = settings.at("nesterov")});
}

// --- comparing
// ---------------------------------------------------------------------------------------------------

using SumAndNorm = std::array<double, 2>;

SumAndNorm sum_and_norm(const Tensor& t) {
  SumAndNorm result{0, 0};
  for (const float v : t.values()) {
    result[0] += static_cast<double>(v);
    result[1] += static_cast<double>(v) * static_cast<double>(v);
  }
  result[1] = std::sqrt(result[1]);
  return result;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> left = a.values();
  const std::vector<float> right = b.values();
  EXPECT_EQ(left.size(), right.size());
  double largest = 0;
  for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(left[i]) - static_cast<double>(right[i])));
  return largest;
}

using Measured = std::map<std::string, SumAndNorm>;

// The number that takes the largest share of what it is allowed.
struct Largest {
  double share = 0;
  std::string where;
};

Largest compare(const Json& recipe, const std::string& field, const Measured& measured) {
  Largest largest;
  const Json& expected = recipe.at(field);
  const Json& spreads = recipe.at(field + "_spread");
  EXPECT_EQ(expected.size(), measured.size()) << field;
  for (const auto& [name, reference] : expected.items()) {
    const auto found = measured.find(name);
    if (found == measured.end()) {
      ADD_FAILURE() << field << ": no " << name;
      continue;
    }
    const double spread = std::max(spreads.at(name)[0].get<double>(), spreads.at(name)[1].get<double>());
    const double allowed = rules_of(recipe).allowed_spreads * spread + 1e-4 * reference[1].get<double>();
    for (std::size_t i = 0; i < 2; ++i) {
      const double off = std::abs(found->second[i] - reference[i].get<double>());
      const double share = off == 0 ? 0 : off / allowed;
      EXPECT_LE(share, 1) << field << " " << name << (i == 0 ? " (sum)" : " (norm)");
      if (share >= largest.share) largest = {share, name + (i == 0 ? " (sum)" : " (norm)")};
    }
  }
  return largest;
}

void report(const std::string& recipe, const std::string& what, const Largest& largest) {
  fmt::print("{:<18} {:<15} {:5.3f} of what is allowed, {}\n", recipe, what, largest.share, largest.where);
}

// --- what a recipe records
// ---------------------------------------------------------------------------------------

// Stands in a layer's place and notes what it puts out.
class Probe final : public Module {
 public:
  Probe(std::shared_ptr<Module> inner, std::string name, Measured& outputs)
      : inner_(std::move(inner)), name_(std::move(name)), outputs_(outputs) {}
  std::string kind() const override { return "Probe"; }
  Tensor forward(const Tensor& x) override {
    Tensor y = inner_->forward(x);
    outputs_[name_] = sum_and_norm(y);
    return y;
  }

 private:
  std::shared_ptr<Module> inner_;
  std::string name_;
  Measured& outputs_;
};

// Of every convolution and of fc, in the first training forward of a network of its own.
Measured first_outputs(const Json& recipe, const TrainingBatch& batch) {
  const auto network = make_network(recipe, batch.images.device());
  Measured outputs;
  for (const auto& [name, numbers] : recipe.at("output_first").items())
    network->replace_child(name, std::make_shared<Probe>(network->child(name), name, outputs));
  network->forward(batch.images);
  return outputs;
}

struct Recorded {
  std::vector<double> losses;
  Measured gradient_first;
  Measured final_state;
  TensorMap final_tensors;
  double eval_loss = 0;
};

Recorded train(const Json& recipe, const std::vector<TrainingBatch>& batches) {
  Recorded run;
  const auto network = make_network(recipe, batches[0].images.device());
  SGD optimizer = make_optimizer(*network, recipe);
  for (std::size_t k = 0; k < batches.size(); ++k) {
    optimizer.set_learning_rate(recipe.at("lr")[k]);
    optimizer.zero_grad();
    const Tensor loss = softmax_cross_entropy(network->forward(batches[k].images), batches[k].labels);
    Tape::backward(loss);
    run.losses.push_back(static_cast<double>(loss.item()));
    if (k == 0)
      for (const NamedTensor& p : network->named_parameters())
        run.gradient_first[p.name] = sum_and_norm(p.tensor.grad());
    optimizer.step();
  }
  for (const NamedTensor& t : network->state_dict()) {
    if (t.tensor.dtype() != DType::f32) continue;
    run.final_state[t.name] = sum_and_norm(t.tensor);
    run.final_tensors[t.name] = t.tensor;
  }
  network->evaluate();
  const NoGradGuard no_grad;
  for (const TrainingBatch& batch : batches)
    run.eval_loss +=
        static_cast<double>(softmax_cross_entropy(network->forward(batch.images), batch.labels).item()) /
        static_cast<double>(batches.size());
  return run;
}

// --- the tests
// ---------------------------------------------------------------------------------------------------

class Trajectory : public testing_support::OnDevice<std::string> {};

TEST_P(Trajectory, IsReproduced) {
  const std::string& name = case_;
  const Json recipe = read_recipe(name);
  const std::vector<TrainingBatch> batches = read_batches(recipe, device_);

  const auto check = [&](const std::string& field, const Measured& measured) {
    report(name, field, compare(recipe, field, measured));
  };
  check("output_first", first_outputs(recipe, batches[0]));

  const Recorded run = train(recipe, batches);
  ASSERT_EQ(run.losses.size(), recipe.at("loss").size());
  Largest loss;
  for (std::size_t k = 0; k < run.losses.size(); ++k) {
    const double share =
        std::abs(run.losses[k] - recipe["loss"][k].get<double>()) / recipe["tolerance"][k].get<double>();
    EXPECT_LE(share, 1) << "loss of step " << k + 1;
    if (share >= loss.share) loss = {share, fmt::format("step {}", k + 1)};
  }
  report(name, "loss", loss);
  check("gradient_first", run.gradient_first);
  check("final", run.final_state);

  const double reference = recipe.at("eval_loss");
  const double allowed = allowed_spreads * recipe.at("eval_loss_spread").get<double>() + 1e-4 * reference;
  const double eval_share = std::abs(run.eval_loss - reference) / allowed;
  EXPECT_LE(eval_share, 1);
  report(name, "eval_loss", {eval_share, fmt::format("{:.6f}, recorded {:.6f}", run.eval_loss, reference)});

  const TensorMap recorded = load_tensors(file("final.safetensors"));
  for (const auto& [tensor, spread] : recipe.at("final_weights_spread").items()) {
    const double share =
        largest_difference(run.final_tensors.at(tensor), recorded.at(fmt::format("{}.{}", name, tensor))) /
        (allowed_spreads * spread.get<double>() + 1e-4);
    EXPECT_LE(share, 1) << tensor;
    report(name, "final tensors", {share, tensor + " (largest element)"});
  }
}

// Every recipe of the folder.
std::vector<std::string> recipes() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(file("")))
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Recipes, Trajectory, testing_support::on_devices(recipes()),
                         testing_support::device_test_name);

}  // namespace
}  // namespace qtrain
