// qtrain eval: top-1, top-5 and loss of a checkpoint.
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/device_setup.h"
#include "cli/evaluation.h"
#include "cli/model_setup.h"
#include "cli/run_folder.h"
#include "cli/session.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

// The settings of the run, with what the command line says in their place.
TrainOptions evaluation_settings(const EvalOptions& options, const Checkpoint& checkpoint) {
  TrainOptions settings = checkpoint.options;
  settings.init.clear();  // the weights come from the checkpoint
  settings.init_scale.clear();
  settings.batch_size = options.batch_size;
  settings.workers = options.workers;
  if (options.decode != "auto") settings.decode = options.decode;
  settings.bad_images = options.bad_images;
  settings.rank = 0;  // all of the data, whichever part the run was trained on
  settings.world_size = 1;
  settings.plugin.insert(settings.plugin.end(), options.plugin.begin(), options.plugin.end());
  settings.device = options.device;
  if (options.precision != "auto") settings.precision = options.precision;
  if (options.image_size) settings.image_size = options.image_size;
  if (!options.data.empty() && options.data != settings.data) {
    settings.data = options.data;
    settings.augment = "auto";  // only says whether to resize, and depends on the kind of data
  }
  return settings;
}

void require_same_classes(const Checkpoint& checkpoint, const data::Dataset& dataset) {
  const auto classes = checkpoint.options.num_classes.value_or(0);
  if (dataset.classes() > classes)
    throw ValueError({.where = "--data",
                      .what = "the data has more classes than the network",
                      .got = std::to_string(dataset.classes()),
                      .expected = fmt::format("at most {}", classes),
                      .hint = ""});
}

void print_result(const EvaluationResult& result, const Checkpoint& checkpoint, const DataSource& source,
                  std::size_t skipped, double seconds, bool as_json) {
  const double rate = seconds > 0 ? static_cast<double>(result.images) / seconds : 0;
  if (as_json) {
    const nlohmann::ordered_json json{{"checkpoint", checkpoint.file.name()},
                                      {"model", checkpoint.options.model},
                                      {"data", source.spec},
                                      {"images", result.images},
                                      {"skipped", skipped},
                                      {"loss", result.means.loss},
                                      {"top1", result.means.top1},
                                      {"top5", result.means.top5},
                                      {"images_per_second", rate}};
    std::cout << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
    return;
  }
  std::cout << fmt::format("{}: {} after step {}\n", checkpoint.file.name(), checkpoint.options.model,
                           checkpoint.state.step)
            << fmt::format("{}: {} images at {}x{}, {:.0f} img/s{}\n", source.spec, result.images,
                           source.image_size, source.image_size, rate,
                           skipped > 0 ? fmt::format(", {} unreadable ones left out", skipped) : "")
            << fmt::format("top-1 {:.2f}%  top-5 {:.2f}%  loss {:.4f}", 100 * result.means.top1,
                           100 * result.means.top5, result.means.loss)
            << std::endl;
}

}  // namespace

int run_eval(const EvalOptions& options) {
  const auto warn = [](const std::string& text) { std::cerr << "warning: " << text << std::endl; };
  const Checkpoint checkpoint = best_checkpoint(options.checkpoint, warn);
  const TrainOptions settings = evaluation_settings(options, checkpoint);
  choose_threads(options.threads);
  const Device device = set_up_device(settings);
  const BuiltModel built = build_model(settings, settings.num_classes.value_or(0));
  restore_network(checkpoint, *built.network);
  built.network->to(device);
  const DataSource source = open_data(settings, Parts::validation);
  require_same_classes(checkpoint, *source.validation);
  data::Loader loader(source.validation, validation_loader(settings, source, device));
  const auto start = std::chrono::steady_clock::now();
  const auto result = evaluate(*built.network, loader, source.normalization, device);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (result) print_result(*result, checkpoint, source, loader.bad_count(), seconds, options.json);
  return 0;
}

}  // namespace qtrain::cli
