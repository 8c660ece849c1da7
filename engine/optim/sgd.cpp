#include "engine/optim/sgd.h"

#include <limits>

#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/update.h"
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

void SGD::update(const Update& u) {
  const Stream stream = backend(u.parameter.device()).stream();
  const auto rate = static_cast<float>(u.learning_rate);
  const auto decay = static_cast<float>(u.weight_decay);
  float* const p = u.parameter.data<float>();
  const float* const g = u.gradient.data<float>();
  if (options_.momentum == 0)
    return qtrain::update(stream, u.parameter.numel(), update_rules::Sgd{rate, decay}, p, g);
  const bool first = u.step == 1;
  const auto momentum = static_cast<float>(options_.momentum);
  const update_rules::SgdMomentum rule{.learning_rate = rate,
                                       .weight_decay = decay,
                                       .momentum = first ? 0 : momentum,
                                       .undamped = first ? 1 : static_cast<float>(1 - options_.dampening),
                                       .momentum_ahead = momentum,
                                       .nesterov = options_.nesterov};
  qtrain::update(stream, u.parameter.numel(), rule, p, u.state[0].data<float>(), g);
}

}  // namespace qtrain
