// How far the pixels of --decode fast lie from those of exact, in steps of 1/255, for photographs of several
// sizes on their way to 224 x 224. One JSON line a size and pipeline:
//   decode_difference [COUNT] [--detail 1.0]        COUNT photographs of each size, 8
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "bench/arguments.h"
#include "bench/photographs.h"
#include "data/augment/transform.h"

namespace {

using namespace qtrain;

struct Rendered {
  std::vector<std::uint8_t> pixels;
  int scale;
};

Rendered render(const std::vector<std::byte>& file, const data::PipelineOptions& options,
                std::uint64_t index) {
  const data::Pipeline pipeline(options);
  data::ImageDecoder decoder(options.decode);
  const data::Size size = decoder.open(file, "photograph");
  RandomStream random(1, RandomPurpose::augment, 0, index);
  const data::Geometry geometry = pipeline.plan(size, random);
  const data::DecodedPart& part = decoder.decode(geometry.needed(size), geometry.shrink());
  Rendered result{std::vector<std::uint8_t>(pipeline.bytes_per_image()), part.scale};
  pipeline.render(part, geometry, random, result.pixels);
  return result;
}

struct Difference {
  double sum = 0;
  double bias = 0;
  int largest = 0;
  std::size_t values = 0;
  std::size_t smaller = 0;  // images decoded smaller than they are
};

void add(Difference& total, const std::vector<std::byte>& file, data::PipelineOptions options,
         std::uint64_t index) {
  const Rendered fast = render(file, options, index);
  options.decode = data::DecodeMode::exact;
  const Rendered exact = render(file, options, index);
  for (std::size_t i = 0; i < fast.pixels.size(); ++i) {
    const int difference = fast.pixels[i] - exact.pixels[i];
    total.sum += std::abs(difference);
    total.bias += difference;
    total.largest = std::max(total.largest, std::abs(difference));
  }
  total.values += fast.pixels.size();
  total.smaller += fast.scale > 1 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  bench::Arguments arguments(argc, argv);
  const double detail = std::stod(arguments.option("detail", "1"));
  arguments.expect_words(0, "decode_difference [COUNT] [--detail FACTOR]");
  const auto count = static_cast<std::uint64_t>(arguments.number(0, 8));
  for (const data::Size size : {data::Size{500, 375}, {1000, 750}, {2000, 1500}, {4000, 3000}}) {
    Difference totals[2];
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto file = data::encode_jpeg(bench::photograph(size, detail, i), 90);
      for (const bool train : {false, true}) add(totals[train ? 1 : 0], file, {.train = train}, i);
    }
    for (const bool train : {false, true}) {
      const Difference& total = totals[train ? 1 : 0];
      const auto values = static_cast<double>(total.values);
      std::printf(
          "{\"width\": %d, \"height\": %d, \"detail\": %g, \"pipeline\": \"%s\", \"images\": %d, "
          "\"smaller\": "
          "%zu, \"mean\": %.3f, \"bias\": %.3f, \"max\": %d}\n",
          size.width, size.height, detail, train ? "train" : "eval", static_cast<int>(count), total.smaller,
          total.sum / values, total.bias / values, total.largest);
      std::fflush(stdout);
    }
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "decode_difference: %s\n", error.what());
  return 2;
}
