// The folder layout of torchvision's ImageFolder: ROOT/{train,val}/CLASS/any/depth/file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>

#include "data/dataset.h"

namespace qtrain::data {

// How a listing is kept from one start to the next, see folder_index.h.
struct IndexOptions {
  std::optional<std::filesystem::path> folder;  // where indices are kept; nothing: folders are listed anew
  std::size_t least_files = 10'000;             // fewer are listed anew: that takes no time

  // In the user's cache folder, unless the environment variable QTRAIN_INDEX_CACHE is `off`. ValueError for
  // another value than `on` and `off`.
  static IndexOptions standard();
};

// Classes are numbered by name, files ordered by folder, then by name, symbolic links followed: torchvision's
// order. Other than there, every file counts whatever its extension (what isn't an image is reported when it
// is read); only hidden files and folders are left out. Throws IoError for a folder that is missing or can't
// be listed; FormatError where there is no train/ or val/, fewer than two classes, a class without files,
// a folder that contains itself by a link, or where train/ and val/ have different classes.
std::shared_ptr<const Dataset> open_image_folder(const std::filesystem::path& root, Split split,
                                                 const IndexOptions& index = IndexOptions::standard());

}  // namespace qtrain::data
