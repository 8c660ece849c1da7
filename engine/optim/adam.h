// Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019) as torch.optim defines them.
#pragma once

#include "engine/optim/optimizer.h"

namespace qtrain {

struct AdamOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

// Weight decay is added to the gradient.
class Adam : public Optimizer {
 public:
  Adam(std::vector<ParameterGroup> groups,
       const AdamOptions& options);  // ValueError for options out of range
  std::string_view name() const override { return "adam"; }

 protected:
  std::vector<std::string_view> state_names() const override { return {"exp_avg", "exp_avg_sq"}; }
  std::unique_ptr<FusedRule> make_rule() const override { return make_rule(false); }
  std::unique_ptr<FusedRule> make_rule(bool decoupled_decay) const;

 private:
  AdamOptions options_;
};

// Weight decay shrinks the parameter itself: p *= 1 - lr * wd.
class AdamW final : public Adam {
 public:
  using Adam::Adam;
  std::string_view name() const override { return "adamw"; }

 protected:
  std::unique_ptr<FusedRule> make_rule() const override { return Adam::make_rule(true); }
};

}  // namespace qtrain
