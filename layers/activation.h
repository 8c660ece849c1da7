// Activations as modules: functions of engine/ops/activation.h with a place in the tree.
#pragma once

#include "layers/module.h"

namespace qtrain {

class Identity final : public Module {
 public:
  Tensor forward(const Tensor& x) override { return x; }
  std::string kind() const override { return "Identity"; }
};

class ReLU final : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "ReLU"; }
};

class ReLU6 final : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "ReLU6"; }
};

class LeakyReLU final : public Module {
 public:
  explicit LeakyReLU(float negative_slope = 0.01F) : negative_slope_(negative_slope) {}
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "LeakyReLU"; }
  std::string describe() const override;

 private:
  float negative_slope_;
};

// min(max(x, low), high)
class Hardtanh final : public Module {
 public:
  explicit Hardtanh(float low = -1, float high = 1);  // ValueError unless low < high
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "Hardtanh"; }
  std::string describe() const override;

 private:
  float low_;
  float high_;
};

class Sigmoid final : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "Sigmoid"; }
};

class Tanh final : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "Tanh"; }
};

class SiLU final : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "SiLU"; }
};

class Hardswish final : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "Hardswish"; }
};

}  // namespace qtrain
