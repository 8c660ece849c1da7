// Which files are the shards of a data set of tar archives.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace qtrain::data {

// `where` is a folder or a pattern. The shards of a folder are its .tar files and those of train/ and val/ in
// it. A pattern has the shell's * ? [..] {a,b} {000..146}; braces stand for files that must be there. A shard
// belongs to the split of its folder, if that is called train or val, else to the split in its name; others
// don't count. Sorted by path. Throws IoError for a folder or shard that is missing, FormatError where a
// split has none.
std::vector<std::filesystem::path> find_tar_shards(const std::string& where, Split split);

// Whether a folder holds such shards and no folders of classes beside them.
bool is_tar_folder(const std::filesystem::path& folder);

}  // namespace qtrain::data
