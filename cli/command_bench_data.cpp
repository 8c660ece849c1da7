// qtrain bench-data: how fast a data set is read and decoded.
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands.h"
#include "cli/data_benchmark.h"
#include "cli/data_setup.h"
#include "cli/report.h"

namespace qtrain::cli {
namespace {

TrainOptions settings_of(const BenchDataOptions& options) {
  TrainOptions settings;
  settings.data = options.data;
  settings.workers = options.workers;
  settings.readers = options.readers;
  settings.batch_size = options.batch_size;
  settings.image_size = options.image_size;
  settings.augment = options.augment;
  settings.bad_images = options.bad_images;
  settings.drop_last = false;
  return settings;
}

std::string row_text(const Measured& measured) {
  const char* what = "";
  const char* name = "";
  const char* unit = "thread";
  switch (measured.step) {
    case LoadStep::disk:
      name = "disk";
      what = "files read, nothing decoded";
      break;
    case LoadStep::decode_one:
    case LoadStep::decode:
      name = "decode";
      what = "files in memory";
      break;
    case LoadStep::loader:
      name = "loader";
      what = "everything, as in training";
      unit = "worker";
      break;
  }
  return fmt::format("{:<8} {:>10} {:>10.0f} img/s {:>9.1f} MB/s   {}", name,
                     fmt::format("{} {}{}", measured.threads, unit, measured.threads == 1 ? "" : "s"),
                     measured.images_per_second(), measured.megabytes_per_second(), what);
}

nlohmann::ordered_json json_of(const Measured& measured) {
  return {{"threads", measured.threads},
          {"images", measured.images},
          {"seconds", measured.seconds},
          {"images_per_second", measured.images_per_second()},
          {"megabytes_per_second", measured.megabytes_per_second()}};
}

}  // namespace

int run_bench_data(const BenchDataOptions& options) {
  const TrainOptions settings = settings_of(options);
  const bool train = options.split == "train";
  const DataSource source = open_data(settings, train ? Parts::both : Parts::validation);
  const auto& dataset = train ? source.train : source.validation;
  const data::LoaderOptions loader =
      train ? training_loader(settings, source, {}) : validation_loader(settings, source, {});
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  if (!options.json)
    std::cout << fmt::format("{}: {} {} images at {}x{}, augment {}; measuring for about {:.3g} s",
                             source.spec, dataset->size(), train ? "training" : "validation",
                             source.image_size, source.image_size, source.augment, options.seconds)
              << std::endl;
  const DataBenchmark result =
      benchmark_data(dataset, loader, {options.seconds, static_cast<std::size_t>(options.images)},
                     [&](const Measured& measured) {
                       if (!options.json) std::cout << row_text(measured) << std::endl;
                     });
  const std::string limit = limit_text(result, loader, cores);
  if (!options.json) {
    std::cout << fmt::format("images   {} on average\nlimit    {}", bytes_text(result.mean_bytes), limit)
              << std::endl;
    return 0;
  }
  const nlohmann::ordered_json json{{"data", source.spec},
                                    {"split", options.split},
                                    {"images", dataset->size()},
                                    {"mean_bytes", result.mean_bytes},
                                    {"image_size", source.image_size},
                                    {"augment", source.augment},
                                    {"batch_size", options.batch_size},
                                    {"workers", options.workers},
                                    {"readers", options.readers},
                                    {"cores", cores},
                                    {"disk", json_of(result.disk)},
                                    {"decode_one", json_of(result.decode_one)},
                                    {"decode", json_of(result.decode)},
                                    {"loader", json_of(result.loader)},
                                    {"limit", limit}};
  std::cout << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  return 0;
}

}  // namespace qtrain::cli
