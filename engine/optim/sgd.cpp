#include "engine/optim/sgd.h"

#include <limits>

#include "engine/core/error.h"
#include "engine/optim/rule_pass.h"
#include "engine/optim/update_rules.h"

namespace qtrain {

SGD::SGD(std::vector<ParameterGroup> groups, const SgdOptions& options)
    : Optimizer(std::move(groups), options.learning_rate), options_(options) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  require_range("sgd", "momentum", options.momentum, 0, infinity);
  require_range("sgd", "dampening", options.dampening, 0, infinity);
  if (options.nesterov && (options.momentum == 0 || options.dampening != 0))
    throw ValueError({.where = "sgd",
                      .what = "nesterov without momentum, or with dampening",
                      .got = "",
                      .expected = "momentum above 0 and dampening 0",
                      .hint = ""});
}

std::vector<std::string_view> SGD::state_names() const {
  if (options_.momentum == 0) return {};
  return {"momentum_buffer"};
}

std::unique_ptr<FusedRule> SGD::make_rule() const {
  if (options_.momentum == 0)
    return fused_rule<update_rules::Sgd, 0>([](const UpdateSettings& s) {
      return update_rules::Sgd{static_cast<float>(s.learning_rate), static_cast<float>(s.weight_decay)};
    });
  return fused_rule<update_rules::SgdMomentum, 1>([o = options_](const UpdateSettings& s) {
    const bool first = s.step == 1;
    const auto momentum = static_cast<float>(o.momentum);
    return update_rules::SgdMomentum{.learning_rate = static_cast<float>(s.learning_rate),
                                     .weight_decay = static_cast<float>(s.weight_decay),
                                     .momentum = first ? 0 : momentum,
                                     .undamped = first ? 1 : static_cast<float>(1 - o.dampening),
                                     .momentum_ahead = momentum,
                                     .nesterov = o.nesterov};
  });
}

}  // namespace qtrain
