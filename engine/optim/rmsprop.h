// RMSprop (Hinton) as torch.optim.RMSprop defines it, centered and with momentum if wanted.
#pragma once

#include "engine/optim/optimizer.h"

namespace qtrain {

struct RmsPropOptions {
  double learning_rate = 0.01;
  double alpha = 0.99;
  double epsilon = 1e-8;
  double momentum = 0;
  bool centered = false;
};

class RMSprop final : public Optimizer {
 public:
  RMSprop(std::vector<ParameterGroup> groups,
          const RmsPropOptions& options);  // ValueError for options out of range
  std::string_view name() const override { return "rmsprop"; }

 protected:
  std::vector<std::string_view> state_names() const override;
  std::unique_ptr<FusedRule> make_rule() const override;

 private:
  RmsPropOptions options_;
};

}  // namespace qtrain
