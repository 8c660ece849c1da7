#include "layers/normalization.h"

#include <fmt/format.h>

#include "engine/core/error.h"

namespace qtrain {
namespace {

Tensor initial_gain(std::int64_t channels, float epsilon, float momentum) {
  if (channels < 1 || !(epsilon >= 0) || !(momentum >= 0 && momentum <= 1))
    throw ValueError({.where = "BatchNorm2d",
                      .what = "an argument is out of range",
                      .got = fmt::format("{} channels, epsilon {}, momentum {}", channels, epsilon, momentum),
                      .expected = "channels >= 1, epsilon >= 0, momentum from 0 to 1",
                      .hint = ""});
  Tensor gain = Tensor::full({channels}, 1);
  gain.set_requires_grad(true);
  return gain;
}

}  // namespace

BatchNorm2d::BatchNorm2d(std::int64_t channels, float epsilon, float momentum)
    : epsilon_(epsilon),
      momentum_(momentum),
      weight_(add_parameter("weight", initial_gain(channels, epsilon, momentum))),
      bias_(add_parameter("bias", make_parameter({channels}))),
      running_mean_(add_buffer("running_mean", Tensor::zeros({channels}))),
      running_variance_(add_buffer("running_var", Tensor::full({channels}, 1))),
      batches_tracked_(add_counter("num_batches_tracked")) {}

BatchNorm2d::BatchNorm2d(const BatchNorm2d& source, const Tensor& shared_weight, const Tensor& shared_bias)
    : epsilon_(source.epsilon_),
      momentum_(source.momentum_),
      weight_(own_or_shared(shared_weight, "weight", source.weight_)),
      bias_(own_or_shared(shared_bias, "bias", source.bias_)),
      running_mean_(add_buffer("running_mean", source.running_mean_.clone())),
      running_variance_(add_buffer("running_var", source.running_variance_.clone())),
      batches_tracked_(add_counter("num_batches_tracked")) {
  set_fusion(source.fuses());
}

void BatchNorm2d::set_fusion(bool on) {
  fusion_ = on ? std::make_shared<BatchNormFusion>() : nullptr;
}

const Tensor& BatchNorm2d::own_or_shared(const Tensor& shared, const char* name, const Tensor& source) {
  return shared.defined() ? shared : add_parameter(name, source.clone().set_requires_grad(true));
}

Tensor BatchNorm2d::forward(const Tensor& x, bool relu, const Tensor& residual) {
  const BatchNormState state{weight_, bias_, running_mean_, running_variance_};
  const BatchNormOptions options{.epsilon = epsilon_, .momentum = momentum_, .relu = relu, .fusion = fusion_};
  if (!is_training()) return batch_norm_evaluation(x, state, options, residual);
  Tensor y = batch_norm_training(x, state, options, residual);
  ++*batches_tracked_.data<std::int64_t>();
  return y;
}

std::string BatchNorm2d::describe() const {
  return fmt::format("{}({}, epsilon {}, momentum {})", kind(), channels(), epsilon_, momentum_);
}

}  // namespace qtrain
