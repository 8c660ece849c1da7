#include "tests/engine/op_cases.h"

#include <algorithm>
#include <tuple>

#include "engine/autograd/tape.h"
#include "engine/kernels/element.h"
#include "engine/ops/activation.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/cast.h"
#include "engine/ops/convolution.h"
#include "engine/ops/loss.h"
#include "engine/ops/matmul.h"
#include "engine/ops/pooling.h"
#include "engine/ops/rearrange.h"
#include "engine/ops/reduce.h"

namespace qtrain::testing_support {
namespace {

using T = std::vector<Tensor>;
using Cases = std::vector<OpCase>;

const Shape images{2, 5, 7, 6};

void add_activations(Cases& all) {
  // In bf16, the derivatives of sigmoid and tanh are made from rounded results: near their ends little is
  // left.
  const std::tuple<const char*, Tensor (*)(const Tensor&), Range> plain[] = {
      {"relu", relu, {}},
      {"relu6", relu6, {-8, 8}},
      {"sigmoid", sigmoid, {}},
      {"tanh", tanh, {}},
      {"silu", silu, {-8, 8}},
      {"hard_sigmoid", hard_sigmoid, {-8, 8}},
      {"hard_swish", hard_swish, {-8, 8}}};
  for (const auto& [name, op, range] : plain)
    all.push_back({.name = name,
                   .op = [op = op](const T& t) { return op(t[0]); },
                   .shapes = {{3, 71}},
                   .elementwise = true,
                   .range = range});
  all.push_back({"leaky_relu", [](const T& t) { return leaky_relu(t[0], 0.1F); }, {images}, true});
  all.push_back({"clamp", [](const T& t) { return clamp(t[0], -0.5F, 0.7F); }, {images}, true});
}

void add_arithmetic(Cases& all) {
  all.push_back({"scale", [](const T& t) { return scale(t[0], 0.3F); }, {images}, true});
  all.push_back({"shift", [](const T& t) { return shift(t[0], 0.3F); }, {images}, true});
  const std::pair<const char*, Shape> others[] = {
      {"", images}, {"_channels", {1, 5, 1, 1}}, {"_rows", {7, 1}}, {"_scalar", {}}};
  for (const auto& [suffix, b] : others) {
    const std::vector<Shape> shapes{images, b};
    const std::string end = suffix;
    all.push_back({"add" + end, [](const T& t) { return add(t[0], t[1]); }, shapes, true});
    all.push_back({"subtract" + end, [](const T& t) { return subtract(t[0], t[1]); }, shapes, true});
    all.push_back({"multiply" + end, [](const T& t) { return multiply(t[0], t[1]); }, shapes, true});
    all.push_back({"divide" + end, [](const T& t) { return divide(t[0], t[1]); }, shapes, true});
    all.back().range = {0.5, 2};
  }
  const auto off_tape = [&](const std::string& name, const auto& op, const std::vector<Shape>& shapes) {
    all.push_back({.name = name, .op = op, .shapes = shapes, .on_tape = false});
  };
  off_tape("add_in_place",
           [](const T& t) {
             Tensor a = t[0].clone();
             add_in_place(a, t[1]);
             return a;
           },
           {images, images});
  off_tape("multiply_in_place",
           [](const T& t) {
             Tensor a = t[0].clone();
             multiply_in_place(a, t[1]);
             return a;
           },
           {images, {1}});
  all.back().masters = {false, true};
  off_tape("sum_to_channels", [](const T& t) { return sum_to_shape(t[0], {1, 5, 1, 1}); }, {images});
  off_tape("sum_to_rows", [](const T& t) { return sum_to_shape(t[0], {7, 1}); }, {images});
}

void add_rearrangements(Cases& all) {
  all.push_back({"reshape", [](const T& t) { return reshape(t[0], {6, 70}); }, {images}, true});
  all.push_back({"reshape_view", [](const T& t) { return reshape(t[0], {4, 6}); }, {{2, 12}}, true});
  all.push_back({"flatten", [](const T& t) { return flatten(t[0]); }, {images}, true});
  all.push_back({"concat", [](const T& t) { return concat(t, 1); }, {images, {2, 3, 7, 6}}, true});
  all.push_back({"concat_images", [](const T& t) { return concat(t, 0); }, {images, {3, 5, 7, 6}}, true});
  all.push_back({"concat_width", [](const T& t) { return concat(t, 3); }, {images, {2, 5, 7, 1}}, true});
  all.push_back({"pad2d", [](const T& t) { return pad2d(t[0], {1, 2}, {0, 3}, 0.75F); }, {images}, true});
  all.push_back({.name = "cast",
                 .op = [](const T& t) { return cast(cast(t[0], DType::bf16), DType::f32); },
                 .shapes = {images},
                 .takes_bf16 = false});
  // Of u8 images; the input only says where.
  const auto pixels = [](const Tensor& like) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(like.numel()));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 41 % 256);
    return Tensor::from_values<std::uint8_t>(like.shape(), bytes, like.device());
  };
  all.push_back({.name = "normalize_images",
                 .op =
                     [=](const T& t) {
                       return normalize_images(pixels(t[0]), {0.5F, 0.4F, 0.3F}, {0.2F, 0.3F, 0.25F});
                     },
                 .shapes = {{3, 3, 9, 8}},
                 .takes_bf16 = false,
                 .on_tape = false});
  all.push_back({.name = "images_to_float",
                 .op = [=](const T& t) { return images_to_float(pixels(t[0])); },
                 .shapes = {{3, 3, 9, 8}},
                 .takes_bf16 = false,
                 .on_tape = false});
}

void add_reductions(Cases& all) {
  const Shape large{3, 50'001};  // many blocks
  all.push_back({"sum", [](const T& t) { return sum(t[0]); }, {images}});
  all.push_back({"mean", [](const T& t) { return mean(t[0]); }, {images}});
  all.push_back({"sum_large", [](const T& t) { return sum(t[0]); }, {large}});
  all.push_back({"mean_large", [](const T& t) { return mean(t[0]); }, {large}});
  using Dims = std::vector<std::size_t>;
  for (const auto& [name, dims] : {std::pair<const char*, Dims>{"sum_dims", {0, 2}},
                                   {"sum_channels", {1}},
                                   {"sum_but_channels", {0, 2, 3}}}) {
    all.push_back({name, [dims = dims](const T& t) { return sum(t[0], dims); }, {images}});
    all.push_back(
        {std::string(name) + "_kept", [dims = dims](const T& t) { return sum(t[0], dims, true); }, {images}});
  }
}

void add_pooling(Cases& all) {
  const std::pair<const char*, PoolGeometry> geometries[] = {
      {"", {}},
      {"_overlapping", {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1}}},
      {"_uneven", {.kernel = {3, 2}, .stride = {2, 1}, .pad = {1, 1}}},
      {"_apart", {.kernel = {2, 2}, .stride = {3, 3}}}};
  for (const auto& [suffix, g] : geometries) {
    const std::string end = suffix;
    all.push_back({"max_pool" + end, [g = g](const T& t) { return max_pool2d(t[0], g); }, {images}, true});
    all.push_back({"average_pool" + end, [g = g](const T& t) { return average_pool2d(t[0], g); }, {images}});
    PoolGeometry inside = g;
    inside.count_padding = false;
    all.push_back({"average_pool_inside" + end,
                   [inside](const T& t) { return average_pool2d(t[0], inside); },
                   {images}});
  }
  all.push_back({"global_average_pool", [](const T& t) { return global_average_pool2d(t[0]); }, {images}});
}

void add_products(Cases& all) {
  const auto product = [&](const std::string& name, const auto& op, const std::vector<Shape>& shapes,
                           bool weights) {
    all.push_back({.name = name,
                   .op = op,
                   .shapes = shapes,
                   .masters = weights ? std::vector{false, true, true} : std::vector<bool>(),
                   .sums_products = true});
  };
  product(
      "matmul", [](const T& t) { return matmul(t[0], t[1]); }, {{9, 33}, {33, 20}}, false);
  product(
      "matmul_wide", [](const T& t) { return matmul(t[0], t[1]); }, {{64, 256}, {256, 128}}, false);
  const auto layer = [](const T& t) { return linear(t[0], t[1], t.size() > 2 ? t[2] : Tensor()); };
  product("linear", layer, {{9, 33}, {10, 33}, {10}}, true);
  product("linear_without_bias", layer, {{8, 64}, {16, 64}}, true);

  const auto convolution = [&](const std::string& name, const Shape& x, const Shape& w, ConvolutionGeometry g,
                               bool bias) {
    std::vector<Shape> shapes{x, w};
    if (bias) shapes.push_back({w[0]});
    product(
        "conv_" + name, [g](const T& t) { return conv2d(t[0], t[1], t.size() > 2 ? t[2] : Tensor(), g); },
        shapes, true);
  };
  const ConvolutionGeometry same{.pad_begin = {1, 1}, .pad_end = {1, 1}};
  convolution("first_layer", {2, 3, 16, 16}, {16, 3, 3, 3}, same, false);
  convolution("stem", {1, 3, 32, 32}, {64, 3, 7, 7},
              {.stride = {2, 2}, .pad_begin = {3, 3}, .pad_end = {3, 3}}, false);
  convolution("odd_channels", images, {7, 5, 3, 3}, {.stride = {2, 1}, .pad_begin = {1, 1}}, true);
  convolution("wide", {2, 32, 8, 8}, {48, 32, 3, 3}, same, false);
  convolution("wide_bias", {2, 32, 8, 8}, {48, 32, 3, 3}, same, true);
  convolution("one_by_one", {2, 32, 8, 8}, {64, 32, 1, 1}, {.stride = {2, 2}}, false);
  convolution("uneven_padding", {2, 16, 9, 9}, {16, 16, 3, 3}, {.pad_begin = {0, 1}, .pad_end = {2, 1}},
              true);
  convolution("rectangular", {3, 16, 9, 12}, {24, 16, 1, 5},
              {.stride = {1, 2}, .pad_begin = {0, 2}, .pad_end = {0, 2}}, false);
  convolution("groups", {2, 12, 8, 8}, {18, 4, 3, 3}, {.groups = 3}, true);
  convolution("depthwise", {2, 12, 8, 8}, {12, 1, 3, 3}, {.groups = 12}, true);
  convolution("dilated", {2, 16, 9, 9}, {16, 16, 3, 3}, {.dilation = {2, 2}}, false);
  convolution("few_pixels", {3, 128, 2, 2}, {128, 128, 3, 3}, same, false);
  convolution("one_pixel", {8, 64, 1, 1}, {10, 64, 1, 1}, {}, true);
}

void add_batch_norms(Cases& all) {
  const auto batch_norm = [&](const std::string& name, const Shape& x, bool relu, bool residual,
                              bool training, bool statistics = false) {
    const Shape channels{x[1]};
    OpCase c{
        .name = "batch_norm" + name,
        .op =
            [=](const T& t) {
              const BatchNormState state{t[1], t[2], Tensor::full(channels, 0.25F, t[0].device()),
                                         Tensor::full(channels, 1, t[0].device())};
              const auto run = training ? batch_norm_training : batch_norm_evaluation;
              Tensor y = run(t[0], state, {.relu = relu}, residual ? t[3] : Tensor());
              if (!statistics) return y;
              return cast(concat(std::vector{state.running_mean, state.running_variance}, 0), t[0].dtype());
            },
        .shapes = {x, channels, channels},
        .masters = {false, true, true, false},
        .on_tape = !statistics};
    if (residual) c.shapes.push_back(x);
    all.push_back(std::move(c));
  };
  for (const bool training : {true, false})
    for (const bool relu : {false, true})
      for (const bool residual : {false, true})
        batch_norm(std::string(residual ? "_residual" : "") + (relu ? "_relu" : "") +
                       (training ? "" : "_evaluation"),
                   images, relu, residual, training);
  batch_norm("_large", {6, 64, 12, 12}, true, false, true);  // many blocks
  batch_norm("_rows", {33, 10}, false, false, true);
  batch_norm("_running_statistics", {6, 64, 12, 12}, false, false, true, true);
}

void add_losses(Cases& all) {
  const auto labels = [](const Tensor& logits) {
    std::vector<std::int64_t> values;
    for (std::int64_t i = 0; i < logits.dim(0); ++i) values.push_back(i * 7 % logits.dim(1));
    return Tensor::from_values<std::int64_t>({logits.dim(0)}, values, logits.device());
  };
  const auto loss = [&](std::string name, const Shape& logits, float smoothing) {
    all.push_back({.name = std::move(name),
                   .op = [=](const T& t) { return softmax_cross_entropy(t[0], labels(t[0]), smoothing); },
                   .shapes = {logits},
                   .range = {-5, 5},
                   .takes_bf16 = false});
  };
  loss("cross_entropy", {12, 10}, 0);
  loss("cross_entropy_smoothed", {12, 10}, 0.1F);
  loss("cross_entropy_many_classes", {70, 1000}, 0.1F);
  const auto mixed = [&](std::string name, const Shape& logits, float lambda) {
    all.push_back({.name = std::move(name),
                   .op =
                       [=](const T& t) {
                         const Tensor first = labels(t[0]);
                         std::vector<std::int64_t> values = first.values<std::int64_t>();
                         std::ranges::reverse(values);
                         const Tensor partner =
                             Tensor::from_values<std::int64_t>(first.shape(), values, first.device());
                         return softmax_cross_entropy(
                             t[0], MixedLabels{first, partner, Tensor::full({1}, lambda, first.device())},
                             0.1F);
                       },
                   .shapes = {logits},
                   .range = {-5, 5},
                   .takes_bf16 = false});
  };
  mixed("cross_entropy_mixed", {13, 10}, 0.3F);
  mixed("cross_entropy_mixed_many_classes", {70, 1000}, 0.75F);
  for (const std::int64_t k : {1, 5})
    all.push_back({.name = "count_top_" + std::to_string(k),
                   .op = [=](const T& t) { return count_top_k(t[0], labels(t[0]), k); },
                   .shapes = {{300, 20}},
                   .takes_bf16 = false,
                   .on_tape = false});
}

}  // namespace

std::vector<OpCase> op_cases() {
  Cases all;
  add_activations(all);
  add_arithmetic(all);
  add_rearrangements(all);
  add_reductions(all);
  add_pooling(all);
  add_products(all);
  add_batch_norms(all);
  add_losses(all);
  return all;
}

OpOutcome run_op(const OpCase& c, DType dtype, Device device) {
  std::vector<Tensor> leaves;
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < c.shapes.size(); ++i) {
    const std::vector<float> values = rounded(random_values(c.shapes[i].numel(), 10 + i, c.range));
    leaves.push_back(Tensor::from_values(c.shapes[i], values, device));
    leaves.back().set_requires_grad(c.on_tape);
    const bool master = i < c.masters.size() && c.masters[i];
    inputs.push_back(master ? leaves.back() : cast(leaves.back(), dtype));
  }
  const Tensor y = c.op(inputs);
  EXPECT_EQ(y.dtype(), dtype);
  EXPECT_EQ(y.device(), device);
  OpOutcome outcome{.shape = y.shape(), .y = cast(y, DType::f32).values(), .gradients = {}};
  if (!c.on_tape) return outcome;
  const std::vector<float> cotangent = rounded(random_values(y.numel(), 99));
  Tape::backward(y, cast(Tensor::from_values(y.shape(), cotangent, device), dtype));
  for (const Tensor& leaf : leaves) {
    EXPECT_EQ(leaf.grad().dtype(), DType::f32);
    outcome.gradients.push_back(leaf.grad().values());
  }
  return outcome;
}

std::vector<float> rounded(std::vector<float> values) {
  for (float& v : values) v = to_float(to_bfloat16(v));
  return values;
}

}  // namespace qtrain::testing_support
