// Tar archives in WebDataset's convention (tar_samples.h), read where they lie.
#pragma once

#include <memory>
#include <string>

#include "data/dataset.h"

namespace qtrain::data {

// `where`: see find_tar_shards. All headers are read once, by several threads, so that samples can then be
// taken in any order; shards stay mapped. Samples are ordered by shard, then as in the archive. Classes are
// named by classes.txt, a name a line, beside the shards or in the folder above train/ and val/; else they
// are numbered, up to the largest label of both splits. Throws what find_tar_shards and read_tar_samples
// throw, and FormatError for a label without a name and for fewer than two classes.
std::shared_ptr<const Dataset> open_tar(const std::string& where, Split split);

}  // namespace qtrain::data
