#include "engine/optim/adam.h"

#include <cmath>
#include <limits>

#include "engine/backend/backend.h"
#include "engine/kernels/update.h"
#include "engine/optim/update_rules.h"

namespace qtrain {

Adam::Adam(std::vector<ParameterGroup> groups, const AdamOptions& options)
    : Optimizer(std::move(groups), options.learning_rate), options_(options) {
  require_range("adam", "beta1", options.beta1, 0, 1);
  require_range("adam", "beta2", options.beta2, 0, 1);
  require_range("adam", "epsilon", options.epsilon, 0, std::numeric_limits<double>::infinity());
}

void Adam::update(const Update& u, double added_decay, double shrink) {
  const auto t = static_cast<double>(u.step);
  const auto narrow = [](double v) { return static_cast<float>(v); };
  const update_rules::Adam rule{.step_size = narrow(u.learning_rate / (1 - std::pow(options_.beta1, t))),
                                .weight_decay = narrow(added_decay),
                                .shrink = narrow(shrink),
                                .beta1 = narrow(options_.beta1),
                                .fresh1 = narrow(1 - options_.beta1),
                                .beta2 = narrow(options_.beta2),
                                .fresh2 = narrow(1 - options_.beta2),
                                .root_correction2 = narrow(std::sqrt(1 - std::pow(options_.beta2, t))),
                                .epsilon = narrow(options_.epsilon)};
  qtrain::update(backend(u.parameter.device()).stream(), u.parameter.numel(), rule, u.parameter.data<float>(),
                 u.state[0].data<float>(), u.state[1].data<float>(),
                 static_cast<const float*>(u.gradient.data<float>()));
}

}  // namespace qtrain
