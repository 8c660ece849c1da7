// Listings of folders, kept from one start to the next: listing a million files anew takes as long as the
// disk likes, asking a thousand folders whether they have changed a moment.
#pragma once

#include <filesystem>
#include <optional>

#include "data/sets/folder_listing.h"

namespace qtrain::data {

class FolderIndex {
 public:
  // The index of a split's folder in a folder of indices.
  FolderIndex(const std::filesystem::path& indices, const std::filesystem::path& split);

  const std::filesystem::path& path() const { return path_; }

  // The listing, if there is one, whole, of as many classes, and no folder has changed since.
  std::optional<FolderListing> load(std::size_t classes) const;

  // Keeps a listing for later; where that isn't possible, it is made anew next time. A folder that was
  // modified in the last seconds before `listed_at` (seconds since 1970) is left alone: it could change again
  // without another time stamp.
  void save(const FolderListing& listing, std::int64_t listed_at) const;

 private:
  std::filesystem::path split_;
  std::string real_path_;
  std::filesystem::path path_;
};

}  // namespace qtrain::data
