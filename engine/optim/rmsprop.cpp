#include "engine/optim/rmsprop.h"

#include <limits>

#include "engine/backend/backend.h"
#include "engine/kernels/update.h"
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

void RMSprop::update(const Update& u) {
  const update_rules::RmsProp rule{.learning_rate = static_cast<float>(u.learning_rate),
                                   .weight_decay = static_cast<float>(u.weight_decay),
                                   .alpha = static_cast<float>(options_.alpha),
                                   .fresh = static_cast<float>(1 - options_.alpha),
                                   .epsilon = static_cast<float>(options_.epsilon),
                                   .momentum = static_cast<float>(options_.momentum)};
  const Stream stream = backend(u.parameter.device()).stream();
  const std::int64_t n = u.parameter.numel();
  float* const p = u.parameter.data<float>();
  const float* const g = u.gradient.data<float>();
  const auto state = [&](std::size_t i) { return u.state[i].data<float>(); };
  const bool momentum = options_.momentum > 0;
  if (options_.centered) {
    const update_rules::RmsPropCentered centered{rule};
    if (momentum) return qtrain::update(stream, n, centered, p, state(0), state(1), state(2), g);
    return qtrain::update(stream, n, centered, p, state(0), state(1), g);
  }
  if (momentum) return qtrain::update(stream, n, rule, p, state(0), state(1), g);
  qtrain::update(stream, n, rule, p, state(0), g);
}

}  // namespace qtrain
