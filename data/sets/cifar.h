// CIFAR-10 and CIFAR-100 in their binary versions (https://www.cs.toronto.edu/~kriz/cifar.html).
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"

namespace qtrain::data {

enum class CifarKind { cifar10, cifar100 };

// `folder` holds the .bin files, or the folder that the archive unpacks to. Class names come from the text
// file beside them, else they are numbers. Everything is read into memory. Throws IoError for a missing file,
// FormatError for one whose size is no whole number of records or that holds a label out of range.
std::shared_ptr<const Dataset> open_cifar(const std::filesystem::path& folder, CifarKind kind, Split split);

}  // namespace qtrain::data
