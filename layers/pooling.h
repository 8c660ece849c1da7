// Pooling and flattening as modules.
#pragma once

#include "engine/ops/pooling.h"
#include "layers/module.h"

namespace qtrain {

class MaxPool2d final : public Module {
 public:
  explicit MaxPool2d(const PoolGeometry& geometry) : geometry_(geometry) {}
  Tensor forward(const Tensor& x) override { return max_pool2d(x, geometry_); }
  std::string kind() const override { return "MaxPool2d"; }
  std::string describe() const override;

 private:
  PoolGeometry geometry_;
};

class AvgPool2d final : public Module {
 public:
  explicit AvgPool2d(const PoolGeometry& geometry) : geometry_(geometry) {}
  Tensor forward(const Tensor& x) override { return average_pool2d(x, geometry_); }
  std::string kind() const override { return "AvgPool2d"; }
  std::string describe() const override;

 private:
  PoolGeometry geometry_;
};

// The mean over all pixels, [N, C, 1, 1]: PyTorch's AdaptiveAvgPool2d(1).
class GlobalAvgPool2d final : public Module {
 public:
  Tensor forward(const Tensor& x) override { return global_average_pool2d(x); }
  std::string kind() const override { return "GlobalAvgPool2d"; }
};

// [N, ...] to [N, product of the rest].
class Flatten final : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "Flatten"; }
};

}  // namespace qtrain
