// Datasets in a safetensors file.
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"

namespace qtrain::data {

// `images` [N,3,H,W] U8 or F32 and `labels` [N] I64 or I32. For Split::val the tensors `val_images` and
// `val_labels` are taken where they exist, else the same ones as for training. The number of classes is the
// largest label of the file plus one; where the metadata hold `classes`, it is that number. The file stays
// mapped. Throws FormatError for missing tensors, wrong types or shapes, no images, or labels out of range.
std::shared_ptr<const Dataset> open_tensor_dataset(const std::filesystem::path& path, Split split);

}  // namespace qtrain::data
