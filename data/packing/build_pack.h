// Packs made of other data sets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "data/dataset.h"
#include "data/loader/sample_reader.h"
#include "data/sets/progress.h"

namespace qtrain::data {

struct PackSettings {
  int shorter_side = 0;  // larger images are resized to it and become JPEG files; 0: none is
  int quality = 90;      // of those
  int workers = 1;       // threads; the pack doesn't depend on it
  BadImages bad_images = BadImages::fail;  // skip: left out
};

struct PackSummary {
  std::size_t train = 0;  // images
  std::size_t val = 0;
  std::size_t resized = 0;
  std::uint64_t source_bytes = 0;  // of the image files
  std::uint64_t pack_bytes = 0;
  std::size_t bad_count = 0;
  std::vector<BadImage> bad;  // the first few
};

// Packs both splits of a data set into one file, in their order; names lose the folders that all have in
// common. Every image is decoded, so that none gets into a pack that can't be read. `stop` is asked after
// each image; when it says so, nothing is left behind, and nothing is returned. Throws ValueError for data
// sets that don't hold files or whose splits have different classes, FormatError and IoError of images,
// IoError of the pack.
std::optional<PackSummary> build_pack(const Dataset& train, const Dataset& val,
                                      const std::filesystem::path& path, const PackSettings& settings,
                                      const Progress& progress = {}, const std::function<bool()>& stop = {});

}  // namespace qtrain::data
