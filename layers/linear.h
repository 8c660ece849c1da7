// A fully connected layer: y = x W^T + b.
#pragma once

#include "layers/module.h"

namespace qtrain {

// Parameters: weight [out, in] and, if wanted, bias [out]; zero until init.h gives them values.
class Linear : public Module {
 public:
  // ValueError for sizes below 1.
  Linear(std::int64_t in_features, std::int64_t out_features, bool bias = true);
  // Takes over existing parameters; `bias` may be undefined.
  Linear(Tensor weight, Tensor bias);

  const Tensor& weight() const { return weight_; }
  const Tensor& bias() const { return bias_; }  // undefined if there is none
  std::int64_t in_features() const { return weight_.dim(1); }
  std::int64_t out_features() const { return weight_.dim(0); }

  Tensor forward(const Tensor& x) override;  // [N, in] to [N, out]
  std::string kind() const override { return "Linear"; }
  std::string describe() const override;

 private:
  const Tensor& weight_;
  const Tensor& bias_;
};

}  // namespace qtrain
