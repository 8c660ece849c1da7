// What dorefa, pact, lsq, fatnn, lq-nets, xnor and ttq share (QTool: Chen, Liu, Zhuang, Shen et al.,
// github aim-uofa/model-quantization). Around a quantizer's own math, for an input x:
//
//   x' = (x - mean) / std       adaptive=var-mean: per group of weights; mean and std count as constants
//   while warming up            stable = S: the first S training forwards return x', and move clips
//   y  = quantize(x')
//   y  = gamma y                gamma: learned, one a group
//   y  = prox x' + (1 - prox) y prox, in training; evaluation is of the quantized network
//   loss += alpha f(x', y)      quant_loss
//   y  = std y + mean           restore
//
// std has the divisor n - 1; a group without spread, up to the rounding of its mean, has x' = 0. Everything
// is a sequence of ops whose outputs are made again in backward, so only x itself is kept.
#pragma once

#include "quant/groups.h"
#include "quant/quantization_loss.h"

namespace qtrain::quant {

class GroupedQuantizer : public Quantizer {
 public:
  // `op` names the quantizer in messages: "lsq weight". It is kept: a literal. `usual_groups`: what the
  // option groups=0 means, where it isn't what resolve_groups() takes for usual.
  GroupedQuantizer(std::string_view op, const QuantizerSpec& spec, std::int64_t usual_groups = 0);

  Tensor forward(const Tensor& x) final;
  Tensor take_loss() final;
  void start_epoch(const EpochStart& start) final;
  // Unless padding_after_quant.
  bool pads_first() const override;
  bool takes_bf16() const final { return quantizes_bf16() && !has_rules(); }
  std::string kind() const override { return kind_from(op_); }
  std::string describe() const override;
  void set_bits(int bits) override;
  // Not before a forward that wasn't one of the warm-up.
  bool is_steady() const override { return stable_ == 0 || forwards() > stable_; }

  std::string_view op() const { return op_; }
  Role role() const { return role_; }
  LayerKind layer() const { return layer_; }
  std::int64_t groups() const { return groups_; }
  // L: the option, 2 ... 2^bits, or 2^bits.
  std::int64_t levels() const;
  // Codes from 0 (or from -1, ... of a full range) to the top.
  bool half_range() const { return half_range_; }
  // Training forwards until now, a running one included. Only counted where something depends on it.
  std::int64_t forwards() const;

 protected:
  // The quantizer's own math. x has been normalized; `grouping` tells its groups.
  virtual Tensor quantize(const Tensor& x, const Grouping& grouping) = 0;
  // The same of an input with zeros around its images, for quantizers that can do both in one pass.
  virtual Tensor quantize_padded(const Tensor& x, const Border& padding);
  // A forward of the warm-up, the t-th from 1; follow_maximum() for quantizers with a clip.
  virtual void warm_up(const Tensor& /*x*/, const Grouping& /*grouping*/, std::int64_t /*t*/) {}
  // True where quantize() reads x through fake_quantize() and ops alone.
  virtual bool quantizes_bf16() const { return false; }
  // False where quantize(0) isn't 0, or zeros count in statistics.
  virtual bool ignores_zeros() const { return true; }

  // clip <- (m + (t - 1) clip) / t with m = max |x| of the group, times `correlate` where that is positive.
  void follow_maximum(const Tensor& clip, const Tensor& x, const Grouping& grouping, std::int64_t t) const;
  // A learned parameter, one element a group.
  const Tensor& add_group_parameter(std::string name, float initial);
  // Starts counting training forwards, as the buffer "forwards".
  void count_forwards();

 private:
  Tensor forward_padded(const Tensor& x, const Border& padding) final;
  void start_forward(const Tensor& x);
  Tensor apply(const Tensor& x);
  void check_levels(int bits) const;
  bool warming_up() const;
  bool has_rules() const;  // beside quantize()

  std::string_view op_;
  Role role_;
  LayerKind layer_;
  std::int64_t levels_ = 0;
  std::int64_t groups_ = 1;
  bool half_range_ = false;
  bool normalizes_ = false;
  std::int64_t norm_groups_ = 1;
  bool restores_ = false;
  std::int64_t stable_ = 0;
  double correlate_ = -1;
  double prox_ = 0;
  std::int64_t prox_epochs_ = 0;
  std::int64_t prox_milestones_ = 0;
  bool pads_after_ = false;
  QuantizationLoss loss_kind_ = QuantizationLoss::none;
  double loss_alpha_ = 1;
  Tensor loss_;
  const Tensor* gamma_ = nullptr;
  const Tensor* forwards_ = nullptr;
};

// The options that the rules above read. A quantizer leaves out what makes no sense for it by name.
std::vector<OptionSpec> rule_options(Role role, const std::vector<std::string>& without = {});

// `own` and then the rules' options.
std::vector<OptionSpec> with_rule_options(std::vector<OptionSpec> own, Role role,
                                          const std::vector<std::string>& without = {});

}  // namespace qtrain::quant
