// Images/s of the loader on several forms of a data set, beside each other: training (shuffled, random
// resized crop, flip) and evaluation (resize, centre crop), without a network. In each round every form has
// its turn; the ratio to the first form is taken inside a round. Prints a JSON line for each form and
// pipeline, with the time to open the form and to fetch one image without decoding it (checksum included,
// where there is one):
//   pack [--size 224] [--workers 1] [--batch 64] [--rounds 5] DATA...
#include <cstdio>
#include <string>

#include "bench/arguments.h"
#include "bench/measure.h"
#include "data/loader/loader.h"
#include "data/sets/open.h"

namespace {

using namespace qtrain;

struct Setting {
  int image_size = 224;
  int workers = 1;
  std::size_t batch = 64;
};

struct Form {
  std::string data;
  std::shared_ptr<const data::Dataset> set;
  double open_seconds = 0;
  double fetch_seconds = 0;  // an image
  std::unique_ptr<data::Loader> loader;
  std::vector<double> speeds;
};

double fetch_seconds(const data::Dataset& set) {
  data::Record record;
  const auto all = [&] {
    for (std::size_t i = 0; i < set.size(); ++i) set.fetch(i, record);
  };
  all();  // fills the page cache
  return bench::seconds_of(all) / static_cast<double>(set.size());
}

double epoch_speed(data::Loader& loader, std::uint64_t epoch) {
  data::Batch batch;
  std::size_t images = 0;
  loader.start_epoch(epoch);
  const double seconds = bench::seconds_of([&] {
    while (loader.next(batch)) images += static_cast<std::size_t>(batch.count);
  });
  return static_cast<double>(images) / seconds;
}

void measure(std::vector<Form>& forms, const Setting& setting, bool train, std::int64_t rounds) {
  for (Form& form : forms) {
    data::LoaderOptions options;
    options.batch_size = setting.batch;
    options.workers = setting.workers;
    options.shuffle = train;
    options.pipeline.train = train;
    options.pipeline.image_size = setting.image_size;
    form.loader = std::make_unique<data::Loader>(form.set, options);
    form.speeds.clear();
  }
  for (std::int64_t round = 0; round < rounds; ++round)
    for (Form& form : forms)
      form.speeds.push_back(epoch_speed(*form.loader, static_cast<std::uint64_t>(round)));
  for (const Form& form : forms) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < form.speeds.size(); ++i)
      ratios.push_back(form.speeds[i] / forms.front().speeds[i]);
    const bench::Spread speed = bench::spread_of(form.speeds);
    const bench::Spread ratio = bench::spread_of(ratios);
    std::printf(
        "{\"pipeline\": \"%s\", \"data\": \"%s\", \"images\": %zu, \"size\": %d, \"workers\": %d, "
        "\"images_per_second\": %.0f, \"min\": %.0f, \"max\": %.0f, \"ratio\": %.2f, \"ratio_min\": %.2f, "
        "\"ratio_max\": %.2f, \"open_ms\": %.1f, \"fetch_us\": %.1f}\n",
        train ? "training" : "evaluation", form.data.c_str(), form.set->size(), setting.image_size,
        setting.workers, speed.median, speed.min, speed.max, ratio.median, ratio.min, ratio.max,
        1e3 * form.open_seconds, 1e6 * form.fetch_seconds);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  bench::Arguments arguments(argc, argv);
  Setting setting;
  setting.image_size = static_cast<int>(bench::Arguments::parse(arguments.option("size", "224")));
  setting.workers = static_cast<int>(bench::Arguments::parse(arguments.option("workers", "1")));
  setting.batch = static_cast<std::size_t>(bench::Arguments::parse(arguments.option("batch", "64")));
  const std::int64_t rounds = bench::Arguments::parse(arguments.option("rounds", "5"));
  arguments.expect_words(1, "pack [--size N] [--workers N] [--batch N] [--rounds N] DATA...");
  for (const bool train : {true, false}) {
    std::vector<Form> forms;
    for (std::size_t i = 0; i < arguments.count(); ++i) {
      Form& form = forms.emplace_back();
      form.data = arguments.word(i);
      form.open_seconds = bench::seconds_of(
          [&] { form.set = data::open_dataset(form.data, train ? data::Split::train : data::Split::val); });
      form.fetch_seconds = fetch_seconds(*form.set);
    }
    measure(forms, setting, train, rounds);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "pack: %s\n", error.what());
  return 2;
}
