#include "engine/optim/adam.h"

#include <cmath>
#include <limits>

#include "engine/optim/rule_pass.h"
#include "engine/optim/update_rules.h"

namespace qtrain {

Adam::Adam(std::vector<ParameterGroup> groups, const AdamOptions& options)
    : Optimizer(std::move(groups), options.learning_rate), options_(options) {
  require_range("adam", "beta1", options.beta1, 0, 1);
  require_range("adam", "beta2", options.beta2, 0, 1);
  require_range("adam", "epsilon", options.epsilon, 0, std::numeric_limits<double>::infinity());
}

std::unique_ptr<FusedRule> Adam::make_rule(bool decoupled_decay) const {
  return fused_rule<update_rules::Adam, 2>([o = options_, decoupled_decay](const UpdateSettings& s) {
    const auto t = static_cast<double>(s.step);
    const auto narrow = [](double v) { return static_cast<float>(v); };
    return update_rules::Adam{.step_size = narrow(s.learning_rate / (1 - std::pow(o.beta1, t))),
                              .weight_decay = narrow(decoupled_decay ? 0 : s.weight_decay),
                              .shrink = narrow(decoupled_decay ? 1 - s.learning_rate * s.weight_decay : 1),
                              .beta1 = narrow(o.beta1),
                              .fresh1 = narrow(1 - o.beta1),
                              .beta2 = narrow(o.beta2),
                              .fresh2 = narrow(1 - o.beta2),
                              .root_correction2 = narrow(std::sqrt(1 - std::pow(o.beta2, t))),
                              .epsilon = narrow(o.epsilon)};
  });
}

}  // namespace qtrain
