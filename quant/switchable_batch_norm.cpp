#include "quant/switchable_batch_norm.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/core/error.h"
#include "engine/ops/batch_norm.h"
#include "quant/quantizer.h"

namespace qtrain::quant {
namespace {

Tensor copy_parameter(const Tensor& values) {
  Tensor own = values.clone();
  own.set_requires_grad(true);
  return own;
}

// One width's batch norm. Its weight and bias are its own, or the parent's.
class Entry final : public Normalization {
 public:
  Entry(const BatchNorm2d& source, const Tensor& shared_weight, const Tensor& shared_bias)
      : epsilon_(source.epsilon()),
        momentum_(source.momentum()),
        weight_(choose(shared_weight, "weight", source.weight())),
        bias_(choose(shared_bias, "bias", source.bias())),
        running_mean_(add_buffer("running_mean", source.running_mean().clone())),
        running_variance_(add_buffer("running_var", source.running_variance().clone())),
        batches_tracked_(add_counter("num_batches_tracked")) {}

  using Normalization::forward;
  Tensor forward(const Tensor& x, bool relu, const Tensor& residual) override {
    const BatchNormState state{weight_, bias_, running_mean_, running_variance_};
    const BatchNormOptions options{.epsilon = epsilon_, .momentum = momentum_, .relu = relu};
    if (!is_training()) return batch_norm_evaluation(x, state, options, residual);
    Tensor y = batch_norm_training(x, state, options, residual);
    ++*batches_tracked_.data<std::int64_t>();
    return y;
  }
  std::int64_t channels() const override { return running_mean_.dim(0); }
  std::string kind() const override { return "BatchNorm2d"; }

 private:
  // The parent's tensor, which outlives this module and follows to(); else a registered copy.
  const Tensor& choose(const Tensor& shared, const char* name, const Tensor& source) {
    return shared.defined() ? shared : add_parameter(name, copy_parameter(source));
  }

  float epsilon_;
  float momentum_;
  const Tensor& weight_;
  const Tensor& bias_;
  const Tensor& running_mean_;
  const Tensor& running_variance_;
  const Tensor& batches_tracked_;
};

}  // namespace

SwitchableBatchNorm2d::SwitchableBatchNorm2d(const BatchNorm2d& source, BitsList list, bool shared_affine)
    : list_(std::move(list)),
      bits_(list_.widths().back()),
      channels_(source.channels()),
      shared_weight_(add_parameter("weight", shared_affine ? copy_parameter(source.weight()) : Tensor())),
      shared_bias_(add_parameter("bias", shared_affine ? copy_parameter(source.bias()) : Tensor())) {
  for (const int bits : list_.widths())
    entries_.push_back(add<Normalization>(fmt::format("bits{}", bits),
                                          std::make_shared<Entry>(source, shared_weight_, shared_bias_)));
}

void SwitchableBatchNorm2d::set_bits(int bits) {
  if (bits < 1 || bits > float_bits)
    throw ValueError({.where = kind(),
                      .what = "bit-width out of range",
                      .got = std::to_string(bits),
                      .expected = "1..32",
                      .hint = ""});
  list_.entry_of(bits);
  bits_ = bits;
}

Tensor SwitchableBatchNorm2d::forward(const Tensor& x, bool relu, const Tensor& residual) {
  return entries_[list_.entry_of(bits_)](x, relu, residual);
}

std::string SwitchableBatchNorm2d::describe() const {
  return fmt::format("{}({}, for {} bits, {} active)", kind(), channels_, fmt::join(list_.widths(), ", "),
                     bits_);
}

}  // namespace qtrain::quant
