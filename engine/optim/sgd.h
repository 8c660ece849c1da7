// Stochastic gradient descent as torch.optim.SGD defines it.
#pragma once

#include "engine/optim/optimizer.h"

namespace qtrain {

struct SgdOptions {
  double learning_rate = 0.1;
  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;  // needs momentum and no dampening
};

class SGD final : public Optimizer {
 public:
  SGD(std::vector<ParameterGroup> groups, const SgdOptions& options);  // ValueError for options out of range
  std::string_view name() const override { return "sgd"; }

 protected:
  std::vector<std::string_view> state_names() const override;
  std::unique_ptr<FusedRule> make_rule() const override;

 private:
  SgdOptions options_;
};

}  // namespace qtrain
