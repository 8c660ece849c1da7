#include "cli/session.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/model_setup.h"
#include "cli/optimizer_setup.h"
#include "engine/backend/backend.h"
#include "engine/backend/settings.h"
#include "engine/core/error.h"
#include "engine/kernels/parallel.h"
#include "zoo/registry.h"

namespace qtrain::cli {
namespace {

// The settings as this run resolved them, so that a later command does the same with other data at hand.
TrainOptions resolved(TrainOptions options, const DataSource& data, std::int64_t classes) {
  options.data = data.spec;
  options.image_size = data.image_size;
  options.augment = data.augment;
  if (data.normalization.name != "own" && data.normalization.name != "float")
    options.normalize = data.normalization.name;
  options.num_classes = classes;
  return options;
}

}  // namespace

void choose_threads(std::int64_t threads) {
  if (threads > 0) set_thread_count(static_cast<int>(threads));
}

std::int64_t choose_classes(const TrainOptions& options, const data::Dataset& dataset) {
  const std::int64_t there = dataset.classes();
  const std::int64_t classes = options.num_classes.value_or(there);
  if (classes < there)
    throw ValueError({.where = "--num-classes",
                      .what = "the data has more classes than the network",
                      .got = std::to_string(classes),
                      .expected = fmt::format("at least {}", there),
                      .hint = ""});
  if (classes < 2)
    throw ValueError({.where = "data",
                      .what = "all samples are of one class, so there is nothing to learn",
                      .got = "",
                      .expected = "at least 2 classes",
                      .hint = ""});
  return classes;
}

Session make_session(const TrainOptions& options) {
  Session session;
  // Mistakes in names come to light before any data is read.
  load_plugins(options.plugin);
  (void)wrap_options(options);
  (void)zoo::find_model(options.model);
  choose_threads(options.threads);
  session.device = set_up_device(options);
  session.data = open_data(options);
  const std::int64_t classes = choose_classes(options, *session.data.train);
  session.options = resolved(options, session.data, classes);
  session.training = std::make_unique<data::Loader>(session.data.train,
                                                    training_loader(options, session.data, session.device));
  session.validation = std::make_unique<data::Loader>(
      session.data.validation, validation_loader(options, session.data, session.device));
  BuiltModel built = build_model(options, classes);
  session.network = std::move(built.network);
  session.quantized_layers = std::move(built.quantized_layers);
  session.init = std::move(built.init);
  session.network->to(session.device);
  session.optimizer = make_optimizer(options, *session.network);
  session.schedule = make_run_schedule(options, session.steps_per_epoch());
  return session;
}

}  // namespace qtrain::cli
