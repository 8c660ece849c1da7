// Images/s of the loader on a data set: decoding, resizing, flip, batching, without a network. Prints one
// JSON line a number of workers:
//   loader [DATA [IMAGE_SIZE [BATCH [EPOCHS]]]]          demo, 64, 64, 3
//     --workers 1,2        in turn
//     --pipeline train     random resized crop and flip; or
//                eval      resize, centre crop; or
//                decode    nothing but what libjpeg does for the crops of `train`, in a bare loop
// The first epoch of each fills the page cache and isn't counted.
#include <cstdio>
//
#include <jpeglib.h>

#include <ctime>
#include <memory>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>

#include "bench/arguments.h"
#include "bench/measure.h"
#include "data/loader/loader.h"
#include "data/sets/open.h"
#include "engine/core/rng.h"

namespace {

using namespace qtrain;

struct Setting {
  std::string data;
  int image_size = 64;
  std::size_t batch = 64;
  int epochs = 3;
  std::string pipeline;
};

data::PipelineOptions pipeline_of(const Setting& setting) {
  return {.image_size = setting.image_size,
          .train = setting.pipeline != "eval",
          .augment = data::Augment::imagenet};
}

// Images/s of each epoch, by the clock and by the time that all threads spent on a processor.
struct Speeds {
  std::vector<double> clock;
  std::vector<double> processor;

  template <class F>
  void measure(F&& images_of_an_epoch) {
    const std::clock_t start = std::clock();
    std::size_t images = 0;
    const double seconds = bench::seconds_of([&] { images = images_of_an_epoch(); });
    const double used = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    clock.push_back(static_cast<double>(images) / seconds);
    processor.push_back(static_cast<double>(images) / used);
  }
};

void report(const Setting& setting, const data::Dataset& dataset, int workers, const Speeds& speeds) {
  const auto speed = bench::spread_of(speeds.clock);
  std::printf(
      "{\"data\": \"%s\", \"images\": %zu, \"size\": %d, \"pipeline\": \"%s\", \"workers\": %d, "
      "\"images_per_second\": %.1f, \"min\": %.1f, \"max\": %.1f, \"images_per_cpu_second\": %.1f}\n",
      setting.data.c_str(), dataset.size(), setting.image_size, setting.pipeline.c_str(), workers,
      speed.median, speed.min, speed.max, bench::spread_of(speeds.processor).median);
  std::fflush(stdout);
}

void measure_loader(const Setting& setting, const std::shared_ptr<const data::Dataset>& dataset,
                    int workers) {
  data::LoaderOptions options;
  options.batch_size = setting.batch;
  options.workers = workers;
  options.pipeline = pipeline_of(setting);
  data::Loader loader(dataset, options);
  data::Batch batch;
  Speeds speeds;
  for (int epoch = 0; epoch <= setting.epochs; ++epoch) {
    loader.start_epoch(static_cast<std::uint64_t>(epoch));
    const auto read_all = [&] {
      std::size_t images = 0;
      while (loader.next(batch)) images += static_cast<std::size_t>(batch.count);
      return images;
    };
    if (epoch == 0) {
      read_all();
    } else {
      speeds.measure(read_all);
    }
  }
  report(setting, *dataset, workers, speeds);
}

// The rows and columns of a box, without a look at errors: libjpeg's default ends the program.
void decode_box(jpeg_decompress_struct& info, std::span<const std::byte> file, const data::Pipeline& pipeline,
                RandomStream& random, std::vector<std::uint8_t>& pixels) {
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&info, TRUE);
  const data::Size size{static_cast<int>(info.image_width), static_cast<int>(info.image_height)};
  const data::Box box = pipeline.plan(size, random).crop;
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  auto left = static_cast<JDIMENSION>(box.left);
  auto width = static_cast<JDIMENSION>(box.width);
  jpeg_crop_scanline(&info, &left, &width);
  jpeg_skip_scanlines(&info, static_cast<JDIMENSION>(box.top));
  const std::size_t stride = std::size_t{3} * width;
  pixels.resize(stride * static_cast<std::size_t>(box.height));
  for (std::size_t y = 0; y < static_cast<std::size_t>(box.height); ++y) {
    JSAMPROW row = pixels.data() + y * stride;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_abort_decompress(&info);
}

void measure_decoding(const Setting& setting, const data::Dataset& dataset) {
  const data::Pipeline pipeline(pipeline_of(setting));
  std::vector<data::Record> records(dataset.size());
  for (std::size_t i = 0; i < records.size(); ++i) dataset.fetch(i, records[i]);
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  std::vector<std::uint8_t> pixels;
  Speeds speeds;
  for (int epoch = 0; epoch <= setting.epochs; ++epoch) {
    const auto decode_all = [&] {
      for (std::size_t i = 0; i < records.size(); ++i) {
        RandomStream random(data::LoaderOptions{}.seed, RandomPurpose::augment,
                            static_cast<std::uint64_t>(epoch), i);
        decode_box(info, records[i].file, pipeline, random, pixels);
      }
      return records.size();
    };
    if (epoch == 0) {
      decode_all();
    } else {
      speeds.measure(decode_all);
    }
  }
  jpeg_destroy_decompress(&info);
  report(setting, dataset, 0, speeds);
}

}  // namespace

int main(int argc, char** argv) try {
  bench::Arguments arguments(argc, argv);
  Setting setting;
  setting.pipeline = arguments.option("pipeline", "train");
  if (setting.pipeline != "train" && setting.pipeline != "eval" && setting.pipeline != "decode")
    throw std::invalid_argument("--pipeline '" + setting.pipeline + "' is unknown");
  std::istringstream workers(arguments.option("workers", "1,2"));
  arguments.expect_words(0,
                         "loader [DATA [IMAGE_SIZE [BATCH [EPOCHS]]]] [--workers N,...] [--pipeline NAME]");
  setting.data = arguments.count() > 0 ? arguments.word(0) : "demo";
  setting.image_size = static_cast<int>(arguments.number(1, setting.image_size));
  setting.batch = static_cast<std::size_t>(arguments.number(2, 64));
  setting.epochs = static_cast<int>(arguments.number(3, setting.epochs));
  const auto split = setting.pipeline == "eval" ? data::Split::val : data::Split::train;
  const auto dataset = data::open_dataset(setting.data, split);
  if (setting.pipeline == "decode") {
    measure_decoding(setting, *dataset);
    return 0;
  }
  for (std::string count; std::getline(workers, count, ',');)
    measure_loader(setting, dataset, std::stoi(count));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "loader: %s\n", error.what());
  return 2;
}
