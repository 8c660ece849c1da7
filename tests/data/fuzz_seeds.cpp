// Writes what a fuzzer of decoders starts from to a folder: small sound files of every flavour, each with the
// bytes behind it by which decode_fuzz.cpp chooses a part.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/data/jpeg_flavours.h"

namespace {

using namespace qtrain::data;

void write(const std::filesystem::path& path, std::vector<std::byte> bytes, unsigned shift) {
  for (const unsigned value : {0U, 20U, 0U, 17U, 0U, 9U, 0U, 12U, shift}) {
    bytes.push_back(static_cast<std::byte>(value));
  }
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::byte> bytes_of(std::string text, std::size_t size) {
  text.resize(size, 'x');
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  unsigned number = 0;
  for (const auto& [name, flavour] : jpeg_flavours()) {
    for (const Size size : {Size{40, 36}, Size{9, 70}}) {
      write(folder / ("jpeg-" + std::to_string(number)), noise_jpeg(size, flavour, number), number / 2 % 4);
      ++number;
    }
  }
  write(folder / "ppm", bytes_of("P6 3 2 255\n", 29), 0);
  write(folder / "pgm", bytes_of("P5 3 2 255\n", 17), 0);
  return 0;
}
