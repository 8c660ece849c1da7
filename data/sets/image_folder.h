// The folder layout of torchvision's ImageFolder: ROOT/{train,val}/CLASS/any/depth/file.
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"

namespace qtrain::data {

// Classes are numbered by name, files ordered by folder, then by name, symbolic links followed: torchvision's
// order. Other than there, every file counts whatever its extension (what isn't an image is reported when it
// is read); only hidden files and folders are left out. Throws IoError for a missing folder; FormatError
// where there is no train/ or val/, fewer than two classes, a class without files, or where train/ and val/
// have different classes.
std::shared_ptr<const Dataset> open_image_folder(const std::filesystem::path& root, Split split);

}  // namespace qtrain::data
