// Writes an ImageFolder of photograph-like JPEG files, 4:2:0, quality 85 to 95, and prints a line of JSON:
//   make_photographs FOLDER COUNT [WIDTH HEIGHT] [--detail 1.0]   around 500 x 375; every fourth is upright
// Training and validation part are the same files. What is there already is kept when it is as wanted.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "bench/arguments.h"
#include "bench/photographs.h"
#include "data/codec/decode.h"
#include "engine/core/rng.h"

namespace {

namespace fs = std::filesystem;
using namespace qtrain;

std::uintmax_t write_photograph(const fs::path& file, data::Size around, double detail, std::uint64_t index) {
  RandomStream random(7, RandomPurpose::generate, 1, index);
  const auto near = [&](int side) { return static_cast<int>(side * random.uniform(0.9, 1.1)); };
  data::Size size{near(around.width), near(around.height)};
  if (index % 4 == 3) std::swap(size.width, size.height);
  const int quality = 85 + static_cast<int>(random.below(11));
  const auto bytes = data::encode_jpeg(bench::photograph(size, detail, index), quality);
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes.size();
}

}  // namespace

int main(int argc, char** argv) try {
  bench::Arguments arguments(argc, argv);
  const double detail = std::stod(arguments.option("detail", "1"));
  arguments.expect_words(2, "make_photographs FOLDER COUNT [WIDTH HEIGHT] [--detail FACTOR]");
  const fs::path folder = arguments.word(0);
  const std::int64_t count = arguments.number(1, 0);
  const data::Size around{static_cast<int>(arguments.number(2, 500)),
                          static_cast<int>(arguments.number(3, 375))};
  std::uintmax_t bytes = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const fs::path into = folder / "train" / (i % 2 == 0 ? "even" : "odd");
    fs::create_directories(into);
    const fs::path file = into / (std::to_string(10000 + i) + ".jpg");
    bytes += fs::exists(file) ? fs::file_size(file)

                              : write_photograph(file, around, detail, static_cast<std::uint64_t>(i));
  }
  if (!fs::exists(folder / "val")) fs::create_directory_symlink("train", folder / "val");
  std::printf("{\"images\": %ld, \"width\": %d, \"height\": %d, \"mean_kb\": %.1f}\n",
              static_cast<long>(count), around.width, around.height,
              static_cast<double>(bytes) / static_cast<double>(count) / 1000);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "make_photographs: %s\n", error.what());
  return 2;
}
