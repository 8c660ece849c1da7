// The demo set on disk: an ImageFolder of JPEG files in the user's cache folder, made when it is first
// needed.
#pragma once

#include <filesystem>

#include "data/dataset.h"
#include "data/sets/progress.h"

namespace qtrain::data {

struct DemoCounts {
  std::size_t train = 4000;  // images, the classes in turn
  std::size_t val = 1000;
};

// $XDG_CACHE_HOME/qtrain/demo-VERSION, or the same under ~/.cache. Throws IoError where neither variable is
// set.
std::filesystem::path demo_folder();

// Makes the set in `folder` unless a whole one is there, and returns `folder`. The set is generated beside it
// and renamed, so that it is never seen half made; processes that start at once wait for the first; a set
// that lost or changed files is made anew. The files do not depend on the number of threads (0: one per
// core). Throws IoError.
std::filesystem::path ensure_demo_set(const std::filesystem::path& folder, const Progress& progress = {},
                                      const DemoCounts& counts = {}, unsigned threads = 0);

}  // namespace qtrain::data
