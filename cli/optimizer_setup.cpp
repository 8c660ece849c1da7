#include "cli/optimizer_setup.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/optim/adam.h"
#include "engine/optim/rmsprop.h"
#include "engine/optim/sgd.h"
#include "layers/conv2d.h"
#include "layers/linear.h"

namespace qtrain::cli {
namespace {

std::vector<ParameterGroup> parameter_groups(const TrainOptions& options, Module& network) {
  std::set<std::string> weights;
  network.visit([&](const std::string& path, Module& module) {
    if (dynamic_cast<Conv2d*>(&module) != nullptr || dynamic_cast<Linear*>(&module) != nullptr)
      weights.insert(path.empty() ? "weight" : path + ".weight");
  });
  ParameterGroup decaying;
  ParameterGroup other;
  decaying.weight_decay = options.weight_decay;
  for (NamedTensor& parameter : network.named_parameters()) {
    const bool decays = options.weight_decay_on == "all" || weights.contains(parameter.name);
    (decays ? decaying : other).parameters.push_back(std::move(parameter));
  }
  std::vector<ParameterGroup> groups;
  for (ParameterGroup* group : {&decaying, &other})
    if (!group->parameters.empty()) groups.push_back(std::move(*group));
  return groups;
}

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const TrainOptions& o, Module& network) {
  std::vector<ParameterGroup> groups = parameter_groups(o, network);
  const AdamOptions adam{
      .learning_rate = o.lr, .beta1 = o.betas.at(0), .beta2 = o.betas.at(1), .epsilon = o.eps};
  if (o.optimizer == "adam") return std::make_unique<Adam>(std::move(groups), adam);
  if (o.optimizer == "adamw") return std::make_unique<AdamW>(std::move(groups), adam);
  if (o.optimizer == "rmsprop") {
    const RmsPropOptions rmsprop{
        .learning_rate = o.lr, .alpha = o.alpha, .epsilon = o.eps, .momentum = o.momentum};
    return std::make_unique<RMSprop>(std::move(groups), rmsprop);
  }
  const SgdOptions sgd{
      .learning_rate = o.lr, .momentum = o.momentum, .dampening = o.dampening, .nesterov = o.nesterov};
  return std::make_unique<SGD>(std::move(groups), sgd);
}

Schedule make_run_schedule(const TrainOptions& o, std::int64_t steps_per_epoch) {
  const auto steps = [&](double epochs) {
    return static_cast<std::int64_t>(std::llround(epochs * static_cast<double>(steps_per_epoch)));
  };
  ScheduleOptions schedule;
  schedule.name = o.schedule;
  schedule.warmup_steps = steps(o.warmup());
  schedule.total_steps = std::max(o.epochs * steps_per_epoch, schedule.warmup_steps + 1);
  schedule.warmup_start = o.warmup_lr_factor;
  schedule.final_factor = o.lr > 0 ? o.lr_min / o.lr : 0;
  for (const std::int64_t epoch : o.milestones) schedule.milestones.push_back(epoch * steps_per_epoch);
  schedule.gamma = o.gamma;
  schedule.power = o.power;
  schedule.period = steps_per_epoch;  // exponential: gamma is per epoch
  return make_schedule(schedule);
}

}  // namespace qtrain::cli
