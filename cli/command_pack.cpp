// qtrain pack: the image files of a data set in one file.
#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <iostream>
#include <thread>

#include "cli/commands.h"
#include "cli/count_progress.h"
#include "cli/signals.h"
#include "data/packing/build_pack.h"
#include "data/sets/open.h"
#include "data/sets/pack.h"
#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

void check_output(const PackOptions& options) {
  const std::filesystem::path path(options.output);
  if (!std::filesystem::is_regular_file(path)) return;  // nothing there, or what writing it will report
  if (!options.force)
    throw ValueError({.where = "--output",
                      .what = "the file exists already",
                      .got = options.output,
                      .expected = "",
                      .hint = "--force replaces a pack"});
  if (!data::is_pack(path))
    throw ValueError({.where = "--output",
                      .what = "the file isn't a pack, so it isn't replaced",
                      .got = options.output,
                      .expected = "",
                      .hint = ""});
}

data::PackSettings settings_of(const PackOptions& options) {
  if (options.quality && !options.shorter_side)
    throw ValueError({.where = "--quality",
                      .what = "nothing is encoded without --shorter-side",
                      .got = std::to_string(*options.quality),
                      .expected = "",
                      .hint = "--shorter-side 256 makes images smaller"});
  data::PackSettings settings;
  settings.shorter_side = static_cast<int>(options.shorter_side.value_or(0));
  settings.quality = static_cast<int>(options.quality.value_or(settings.quality));
  settings.workers =
      static_cast<int>(options.workers.value_or(std::max(1U, std::thread::hardware_concurrency())));
  settings.bad_images = options.bad_images == "skip" ? data::BadImages::skip : data::BadImages::fail;
  return settings;
}

void print_summary(const PackOptions& options, const data::PackSummary& summary, double seconds) {
  constexpr double megabyte = 1e6;
  const auto images = static_cast<double>(summary.train + summary.val);
  std::cout
      << fmt::format(
             "{}: {} training and {} validation images, {} resized; {:.1f} of {:.1f} MB ({:.0f}%) in {}, "
             "{:.0f} img/s",
             options.output, summary.train, summary.val, summary.resized,
             static_cast<double>(summary.pack_bytes) / megabyte,
             static_cast<double>(summary.source_bytes) / megabyte,
             100 * static_cast<double>(summary.pack_bytes) / static_cast<double>(summary.source_bytes),
             duration_text(seconds), images / seconds)
      << std::endl;
  if (summary.bad_count == 0) return;
  std::cout << fmt::format("bad images  {} left out\n", summary.bad_count);
  for (const data::BadImage& bad : summary.bad) std::cout << "  " << bad.reason << "\n";
  if (summary.bad_count > summary.bad.size()) std::cout << "  ...\n";
}

}  // namespace

int run_pack(const PackOptions& options) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is an error of write(), like a full disk
  check_output(options);
  const data::PackSettings settings = settings_of(options);
  const auto train = data::open_dataset(options.data, data::Split::train);
  const auto val = data::open_dataset(options.data, data::Split::val);
  const SignalGuard signals;
  CountProgress progress(Progress::standard_output(0), "packed");
  const auto summary = data::build_pack(
      *train, *val, options.output, settings,
      [&](std::size_t done, std::size_t total) { progress.show(done, total); },
      [&] { return signals.stop_requested(); });
  const double seconds = progress.seconds();
  if (!summary) {
    std::cerr << "stopped: nothing was written" << std::endl;
    return signals.exit_status();
  }
  print_summary(options, *summary, seconds);
  return 0;
}

}  // namespace qtrain::cli
