#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/core/error.h"
#include "layers/activation.h"
#include "layers/conv2d.h"
#include "zoo/registry.h"

namespace qtrain::zoo {
namespace {

std::vector<std::string> parameter_names(Module& m) {
  std::vector<std::string> names;
  for (const NamedTensor& p : m.named_parameters()) names.push_back(p.name);
  return names;
}

Tensor find(Module& m, const std::string& name) {
  for (const NamedTensor& t : m.state_dict())
    if (t.name == name) return t.tensor;
  return {};
}

TEST(Zoo, HasTorchvisionsParameterCounts) {
  EXPECT_EQ(make_model("resnet18", {.initialize = false})->parameter_count(), 11689512);
  EXPECT_EQ(make_model("resnet34", {.initialize = false})->parameter_count(), 21797672);
  EXPECT_EQ(make_model("resnet50", {.initialize = false})->parameter_count(), 25557032);
  EXPECT_EQ(make_model("resnet101", {.initialize = false})->parameter_count(), 44549160);
}

// He et al. count 0.27, 0.46, 0.66, 0.85 and 1.7 million with parameter-free shortcuts; the projections of
// the two widening blocks add 16*32 + 2*32 and 32*64 + 2*64.
TEST(Zoo, HasCifarParameterCounts) {
  constexpr std::int64_t projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64;
  EXPECT_EQ(make_model("resnet20", {.initialize = false})->parameter_count(), 269722 + projections);
  EXPECT_EQ(make_model("resnet32", {.initialize = false})->parameter_count(), 464154 + projections);
  EXPECT_EQ(make_model("resnet44", {.initialize = false})->parameter_count(), 658586 + projections);
  EXPECT_EQ(make_model("resnet56", {.initialize = false})->parameter_count(), 853018 + projections);
  EXPECT_EQ(make_model("resnet110", {.initialize = false})->parameter_count(), 1727962 + projections);
}

TEST(Zoo, NamesAreTorchvisions) {
  const std::vector<std::string> basic = parameter_names(*make_model("resnet18", {.initialize = false}));
  EXPECT_EQ(std::vector<std::string>(basic.begin(), basic.begin() + 9),
            (std::vector<std::string>{"conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight",
                                      "layer1.0.bn1.weight", "layer1.0.bn1.bias", "layer1.0.conv2.weight",
                                      "layer1.0.bn2.weight", "layer1.0.bn2.bias"}));
  EXPECT_EQ(basic.size(), 62U);
  EXPECT_EQ(basic.back(), "fc.bias");
  const auto model = make_model("resnet50", {.initialize = false});
  EXPECT_EQ(model->named_parameters().size(), 161U);
  EXPECT_EQ(find(*model, "layer1.0.downsample.0.weight").shape(), (Shape{256, 64, 1, 1}));
  EXPECT_EQ(find(*model, "layer4.2.bn3.running_var").shape(), (Shape{2048}));
  EXPECT_EQ(find(*model, "layer3.5.conv3.weight").shape(), (Shape{1024, 256, 1, 1}));
  EXPECT_EQ(find(*model, "bn1.num_batches_tracked").dtype(), DType::i64);
}

TEST(Zoo, BottlenecksStrideInTheirSecondConvolution) {
  const auto model = make_model("resnet50", {.initialize = false});
  const auto stride = [&](const char* path) {
    return std::dynamic_pointer_cast<Conv2d>(model->child(path))->geometry().stride;
  };
  EXPECT_EQ(stride("layer2.0.conv1"), (Extent{1, 1}));
  EXPECT_EQ(stride("layer2.0.conv2"), (Extent{2, 2}));
  EXPECT_EQ(stride("layer2.0.downsample.0"), (Extent{2, 2}));
  EXPECT_EQ(stride("layer2.1.conv2"), (Extent{1, 1}));
}

TEST(Zoo, Resnet20HasTheExpectedTensors) {
  std::set<std::string> expected;
  const auto conv = [&](const std::string& name) { expected.insert(name + ".weight"); };
  const auto bn = [&](const std::string& name) {
    for (const char* t : {".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked"})
      expected.insert(name + t);
  };
  conv("conv1");
  bn("bn1");
  for (const std::string layer : {"layer1.", "layer2.", "layer3."})
    for (const std::string block : {"0.", "1.", "2."})
      for (const std::string i : {"1", "2"}) {
        conv(layer + block + "conv" + i);
        bn(layer + block + "bn" + i);
      }
  for (const std::string layer : {"layer2.0.", "layer3.0."}) {
    conv(layer + "downsample.0");
    bn(layer + "downsample.1");
  }
  expected.insert({"fc.weight", "fc.bias"});
  std::set<std::string> got;
  const auto model = make_model("resnet20");
  for (const NamedTensor& t : model->state_dict()) got.insert(t.name);
  EXPECT_EQ(got, expected);
  EXPECT_EQ(find(*model, "layer2.0.downsample.0.weight").shape(), (Shape{32, 16, 1, 1}));
}

TEST(Zoo, EveryModelIsDescribedAndRuns) {
  for (const ModelInfo& info : models()) {
    EXPECT_FALSE(info.description.empty()) << info.name;
    if (info.name == "resnet101" || info.name == "resnet110")
      continue;  // like resnet50 and resnet56, only longer
    const auto model = make_model(info.name, {.num_classes = 7, .in_channels = 1, .initialize = false});
    model->evaluate();
    const NoGradGuard no_grad;
    EXPECT_EQ((*model)(Tensor::full({2, 1, 33, 40}, 0.5F)).shape(), (Shape{2, 7})) << info.name;
  }
}

TEST(Zoo, OptionsAreFollowed) {
  const auto a = make_model("resnet20", {.seed = 1});
  EXPECT_EQ(find(*a, "fc.weight").shape(), (Shape{10, 64}));
  EXPECT_EQ(find(*a, "conv1.weight").values(),
            find(*make_model("resnet20", {.seed = 1}), "conv1.weight").values());
  EXPECT_NE(find(*a, "conv1.weight").values(),
            find(*make_model("resnet20", {.seed = 2}), "conv1.weight").values());
  EXPECT_EQ(find(*a, "layer1.0.bn2.weight").values()[0], 1.0F);
  const auto zero = make_model("resnet20", {.zero_init_residual = true});
  EXPECT_EQ(find(*zero, "layer1.0.bn2.weight").values()[0], 0.0F);
  EXPECT_EQ(find(*zero, "layer1.0.bn1.weight").values()[0], 1.0F);
  EXPECT_EQ(find(*make_model("resnet50", {.zero_init_residual = true}), "layer1.0.bn3.weight").values()[0],
            0.0F);
}

// All else is affine in evaluation: f(x) + f(-x) = 2 f(0).
TEST(Zoo, WithoutReluANetworkIsAffine) {
  const NoGradGuard no_grad;
  std::vector<float> values(3 * 8 * 8);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(7 * i));
  const Tensor x = Tensor::from_values({1, 3, 8, 8}, values);
  for (float& v : values) v = -v;
  const Tensor negative = Tensor::from_values({1, 3, 8, 8}, values);
  const auto asymmetry = [&](bool relu) {
    const auto model = make_model("resnet20", {.relu = relu, .seed = 3});
    model->evaluate();
    const std::vector<float> a = (*model)(x).values();
    const std::vector<float> b = (*model)(negative).values();
    const std::vector<float> middle = (*model)(Tensor::zeros({1, 3, 8, 8})).values();
    float largest = 0;
    float size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(a[i] + b[i] - 2 * middle[i]));
      size = std::max(size, std::abs(a[i]));
    }
    return largest / size;
  };
  EXPECT_LT(asymmetry(false), 1e-3F);
  EXPECT_GT(asymmetry(true), 1e-2F);
}

TEST(Zoo, TheReluSwitchReachesEveryKindOfBlock) {
  const NoGradGuard no_grad;
  for (const char* name : {"resnet18", "resnet50"}) {
    const auto features = [&](bool relu) {
      const auto model = make_model(name, {.relu = relu, .seed = 3});
      model->evaluate();
      model->replace_child("avgpool", std::make_shared<Identity>());
      model->replace_child("fc", std::make_shared<Identity>());
      return (*model)(Tensor::full({1, 3, 32, 32}, 0.5F)).values();
    };
    const auto negative = [](float v) { return v < 0; };
    EXPECT_TRUE(std::ranges::any_of(features(false), negative)) << name;
    EXPECT_TRUE(std::ranges::none_of(features(true), negative)) << name;
  }
}

TEST(Zoo, UnknownNamesAndSizesAreRefused) {
  try {
    make_model("resnet19");
    FAIL();
  } catch (const ValueError& e) {
    EXPECT_NE(std::string(e.what()).find("did you mean 'resnet1"), std::string::npos) << e.what();
  }
  EXPECT_THROW(make_model(""), ValueError);
  EXPECT_THROW(make_model("resnet18", {.num_classes = -1}), ValueError);
  EXPECT_THROW(make_model("resnet18", {.in_channels = 0}), ValueError);
  EXPECT_EQ(find_model("resnet56").image_size, 32);
  EXPECT_EQ(find_model("resnet18").num_classes, 1000);
}

TEST(Zoo, LayersCanBeReplacedInsideBlocks) {
  const auto model = make_model("resnet20");
  model->replace_child("layer1.0.conv1", std::make_shared<Identity>());
  model->replace_child(
      "layer2.0.downsample.0",
      std::make_shared<Conv2d>(Conv2dOptions{.in_channels = 16, .out_channels = 32, .stride = square(2)}));
  EXPECT_EQ((*model)(Tensor::full({2, 3, 8, 8}, 0.5F)).shape(), (Shape{2, 10}));
  EXPECT_THROW(model->replace_child("layer1.0.bn1", std::make_shared<Identity>()), ValueError);
}

}  // namespace
}  // namespace qtrain::zoo
