#include "layers/init.h"

#include <algorithm>
#include <cmath>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/kernels/parallel.h"
#include "layers/conv2d.h"
#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/normalization.h"

namespace qtrain {
namespace {

// Fills a tensor with draw(random). Blocks of elements have streams of their own (numbered where other
// purposes have the epoch), so that large tensors are drawn by several threads and yet always alike.
template <class Draw>
void fill(const Tensor& t, InitStream stream, Draw&& draw) {
  constexpr std::int64_t block = 65536;
  const std::int64_t n = t.numel();
  std::vector<float> values(static_cast<std::size_t>(n));
  parallel_for((n + block - 1) / block, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      RandomStream random(stream.seed, RandomPurpose::init, static_cast<std::uint64_t>(b), stream.parameter);
      for (std::int64_t i = b * block; i < std::min(n, (b + 1) * block); ++i)
        values[static_cast<std::size_t>(i)] = static_cast<float>(draw(random));
    }
  });
  t.copy_from(Tensor::from_values(t.shape(), values, t.device()));
}

double default_bound(const Tensor& weight) {
  return 1 / std::sqrt(static_cast<double>(fans_of(weight).in));
}

}  // namespace

Fans fans_of(const Tensor& weight) {
  if (weight.rank() < 2)
    throw ShapeError({.where = "init",
                      .what = "not a weight",
                      .got = weight.str(),
                      .expected = "a tensor of rank 2 or more",
                      .hint = ""});
  const std::int64_t per_output = weight.numel() / weight.dim(0);
  return {.in = per_output, .out = weight.dim(0) * (per_output / weight.dim(1))};
}

void init_constant(const Tensor& t, float value) {
  t.copy_from(Tensor::full(t.shape(), value, t.device()));
}

void init_normal(const Tensor& t, InitStream stream, double mean, double deviation) {
  fill(t, stream, [=](RandomStream& random) { return mean + deviation * random.normal(); });
}

void init_uniform(const Tensor& t, InitStream stream, double low, double high) {
  fill(t, stream, [=](RandomStream& random) { return random.uniform(low, high); });
}

void init_kaiming_normal(const Tensor& weight, InitStream stream) {
  init_normal(weight, stream, 0, std::sqrt(2 / static_cast<double>(fans_of(weight).out)));
}

void init_kaiming_uniform(const Tensor& weight, InitStream stream) {
  init_uniform(weight, stream, -default_bound(weight), default_bound(weight));
}

void init_default_bias(const Tensor& bias, const Tensor& weight, InitStream stream) {
  if (bias.defined()) init_uniform(bias, stream, -default_bound(weight), default_bound(weight));
}

void reset_parameters(Module& tree, std::uint64_t seed, ConvolutionInit rule) {
  std::uint64_t parameter = 0;
  std::uint64_t dropouts = 0;
  const auto next = [&] { return InitStream{.seed = seed, .parameter = parameter++}; };
  tree.visit([&](const std::string&, Module& module) {
    if (const auto* conv = dynamic_cast<const Conv2d*>(&module)) {
      (rule == ConvolutionInit::kaiming_normal ? init_kaiming_normal : init_kaiming_uniform)(conv->weight(),
                                                                                             next());
      init_default_bias(conv->bias(), conv->weight(), next());
    } else if (const auto* fc = dynamic_cast<const Linear*>(&module)) {
      init_kaiming_uniform(fc->weight(), next());
      init_default_bias(fc->bias(), fc->weight(), next());
    } else if (const auto* norm = dynamic_cast<const BatchNorm2d*>(&module)) {
      init_constant(norm->weight(), 1);
      init_constant(norm->bias(), 0);
      init_constant(norm->running_mean(), 0);
      init_constant(norm->running_variance(), 1);
    } else if (auto* dropout = dynamic_cast<Dropout*>(&module)) {
      dropout->set_stream(seed, dropouts++);
    }
  });
}

}  // namespace qtrain
