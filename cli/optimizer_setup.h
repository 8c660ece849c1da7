// The optimizer and the learning rate of a run.
#pragma once

#include <memory>

#include "cli/train_options.h"
#include "engine/optim/optimizer.h"
#include "engine/optim/schedules.h"
#include "layers/module.h"

namespace qtrain::cli {

// Two groups: what --weight-decay shrinks, and the rest. `weights`: the weights of convolutions and linear
// layers decay; biases, batch norm and the parameters of quantizers don't. `all`: every learned parameter.
std::unique_ptr<Optimizer> make_optimizer(const TrainOptions& options, Module& network);

// The factor on --lr at each step from 0. It spans all epochs; --max-steps only stops earlier.
Schedule make_run_schedule(const TrainOptions& options, std::int64_t steps_per_epoch);

}  // namespace qtrain::cli
