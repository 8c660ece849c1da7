#include "engine/optim/rmsprop.h"

#include <limits>

#include "engine/optim/rule_pass.h"
#include "engine/optim/update_rules.h"

namespace qtrain {

RMSprop::RMSprop(std::vector<ParameterGroup> groups, const RmsPropOptions& options)
    : Optimizer(std::move(groups), options.learning_rate), options_(options) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  require_range("rmsprop", "alpha", options.alpha, 0, infinity);
  require_range("rmsprop", "epsilon", options.epsilon, 0, infinity);
  require_range("rmsprop", "momentum", options.momentum, 0, infinity);
}

std::vector<std::string_view> RMSprop::state_names() const {
  std::vector<std::string_view> names{"square_avg"};
  if (options_.centered) names.emplace_back("grad_avg");
  if (options_.momentum > 0) names.emplace_back("momentum_buffer");
  return names;
}

std::unique_ptr<FusedRule> RMSprop::make_rule() const {
  const auto rule = [o = options_](const UpdateSettings& s) {
    return update_rules::RmsProp{.learning_rate = static_cast<float>(s.learning_rate),
                                 .weight_decay = static_cast<float>(s.weight_decay),
                                 .alpha = static_cast<float>(o.alpha),
                                 .fresh = static_cast<float>(1 - o.alpha),
                                 .epsilon = static_cast<float>(o.epsilon),
                                 .momentum = static_cast<float>(o.momentum)};
  };
  const auto centered = [rule](const UpdateSettings& s) { return update_rules::RmsPropCentered{rule(s)}; };
  const bool momentum = options_.momentum > 0;
  if (options_.centered) {
    if (momentum) return fused_rule<update_rules::RmsPropCentered, 3>(centered);
    return fused_rule<update_rules::RmsPropCentered, 2>(centered);
  }
  if (momentum) return fused_rule<update_rules::RmsProp, 2>(rule);
  return fused_rule<update_rules::RmsProp, 1>(rule);
}

}  // namespace qtrain
