// Images/s of the loader on a data set: decoding, random resized crop, flip, batching, without a network.
// Prints one JSON line a number of workers:
//   loader [DATA [IMAGE_SIZE [BATCH [EPOCHS]]]]      demo, 64, 64, 3; with 1 and 2 workers in turn
// The first epoch of each fills the page cache and isn't counted.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/measure.h"
#include "data/loader/loader.h"
#include "data/sets/open.h"

namespace {

struct Setting {
  std::string data = "demo";
  int image_size = 64;
  std::size_t batch = 64;
  int epochs = 3;
};

void measure(const Setting& setting, const std::shared_ptr<const qtrain::data::Dataset>& dataset,
             int workers) {
  qtrain::data::LoaderOptions options;
  options.batch_size = setting.batch;
  options.workers = workers;
  options.pipeline.image_size = setting.image_size;
  options.pipeline.augment = qtrain::data::Augment::imagenet;
  qtrain::data::Loader loader(dataset, options);
  qtrain::data::Batch batch;
  std::vector<double> speeds;
  for (int epoch = 0; epoch <= setting.epochs; ++epoch) {
    std::size_t images = 0;
    loader.start_epoch(static_cast<std::uint64_t>(epoch));
    const double seconds = qtrain::bench::seconds_of([&] {
      while (loader.next(batch)) images += static_cast<std::size_t>(batch.count);
    });
    if (epoch > 0) speeds.push_back(static_cast<double>(images) / seconds);
  }
  const auto speed = qtrain::bench::spread_of(speeds);
  std::printf(
      "{\"data\": \"%s\", \"images\": %zu, \"size\": %d, \"workers\": %d, \"images_per_second\": %.0f, "
      "\"min\": %.0f, \"max\": %.0f}\n",
      setting.data.c_str(), dataset->size(), setting.image_size, workers, speed.median, speed.min, speed.max);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  Setting setting;
  if (argc > 1) setting.data = argv[1];
  if (argc > 2) setting.image_size = std::atoi(argv[2]);
  if (argc > 3) setting.batch = static_cast<std::size_t>(std::atoll(argv[3]));
  if (argc > 4) setting.epochs = std::atoi(argv[4]);
  const auto dataset = qtrain::data::open_dataset(setting.data, qtrain::data::Split::train);
  for (const int workers : {1, 2}) measure(setting, dataset, workers);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "loader: %s\n", error.what());
  return 2;
}
