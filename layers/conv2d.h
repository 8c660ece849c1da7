// Two-dimensional convolution with learned weights.
#pragma once

#include "engine/ops/convolution.h"
#include "layers/module.h"

namespace qtrain {

// The same size along height and width.
constexpr Extent square(std::int64_t side) {
  return {side, side};
}

struct Conv2dOptions {
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  Extent kernel{1, 1};
  Extent stride{1, 1};
  Extent padding{0, 0};  // on both sides
  Extent dilation{1, 1};
  std::int64_t groups = 1;
  bool bias = true;
};

// Parameters: weight [O, C/groups, kh, kw] and, if wanted, bias [O]; zero until init.h gives them values.
class Conv2d : public Module {
 public:
  // ValueError for sizes below 1 or channels that groups don't divide.
  explicit Conv2d(const Conv2dOptions& options);
  // Takes over existing parameters; `bias` may be undefined.
  Conv2d(Tensor weight, Tensor bias, const ConvolutionGeometry& geometry);

  const Tensor& weight() const { return weight_; }
  const Tensor& bias() const { return bias_; }  // undefined if there is none
  const ConvolutionGeometry& geometry() const { return geometry_; }
  std::int64_t in_channels() const { return weight_.dim(1) * geometry_.groups; }
  std::int64_t out_channels() const { return weight_.dim(0); }
  Extent kernel() const { return {weight_.dim(2), weight_.dim(3)}; }

  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "Conv2d"; }
  std::string describe() const override;

 private:
  ConvolutionGeometry geometry_;
  const Tensor& weight_;
  const Tensor& bias_;
};

}  // namespace qtrain
