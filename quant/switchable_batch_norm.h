// Batch normalization for networks of several bit-widths (AdaBits, Jin et al. 2020, arXiv:1912.09666):
// activations of each width have other statistics, so each width has a batch norm of its own.
#pragma once

#include "layers/normalization.h"
#include "quant/bits_list.h"

namespace qtrain::quant {

// Children `bits8`, `bits6`, ..., one for each width of the list, each with what BatchNorm2d has: `weight`,
// `bias`, `running_mean`, `running_var`, `num_batches_tracked`. With `shared_affine`, weight and bias are
// parameters of this module instead, and the children have the statistics. The other widths' tensors are left
// alone: their gradients stay undefined.
class SwitchableBatchNorm2d final : public Normalization {
 public:
  // Every width starts with copies of the source's tensors. The last width of the list is active.
  SwitchableBatchNorm2d(const BatchNorm2d& source, BitsList list, bool shared_affine = false);

  int bits() const { return bits_; }
  // Takes effect at the next forward. ValueError for a width that the list refuses.
  void set_bits(int bits);
  void add_settings(std::vector<std::int64_t>& to) const override { to.push_back(bits_); }
  const BitsList& list() const { return list_; }

  using Normalization::forward;
  Tensor forward(const Tensor& x, bool relu, const Tensor& residual) override;
  std::int64_t channels() const override { return channels_; }
  std::string kind() const override { return "SwitchableBatchNorm2d"; }
  std::string describe() const override;

 private:
  BitsList list_;
  int bits_;
  std::int64_t channels_;
  const Tensor& shared_weight_;  // undefined unless shared
  const Tensor& shared_bias_;
  std::vector<Slot<Normalization>> entries_;
};

}  // namespace qtrain::quant
