// Everything that a run needs in memory, made from its settings: device, data, network, optimizer, schedule.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/data_setup.h"
#include "cli/device_setup.h"
#include "cli/train_options.h"
#include "data/loader/loader.h"
#include "engine/optim/optimizer.h"
#include "engine/optim/schedules.h"
#include "layers/module.h"

namespace qtrain::cli {

struct Session {
  TrainOptions options;  // with everything decided that was left to `auto`
  Device device;
  DataSource data;
  std::shared_ptr<Module> network;
  std::vector<std::string> quantized_layers;
  std::optional<LoadReport> init;  // what --init found
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<data::Loader> training;
  std::unique_ptr<data::Loader> validation;
  Schedule schedule;

  std::int64_t steps_per_epoch() const { return static_cast<std::int64_t>(training->batches_per_epoch()); }
};

// --threads; 0 leaves the machine's own number.
void choose_threads(std::int64_t threads);

// The number of classes of the network. ValueError where it is less than the data has, or the data has one.
std::int64_t choose_classes(const TrainOptions& options, const data::Dataset& dataset);

Session make_session(const TrainOptions& options);

}  // namespace qtrain::cli
