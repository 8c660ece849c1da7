#include "data/sets/image_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>

#include "data/sets/cache_folder.h"
#include "data/sets/file_bytes.h"
#include "data/sets/folder_index.h"
#include "data/sets/folder_listing.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_image_file_bytes = std::size_t{512} << 20;

class ImageFolder final : public Dataset {
 public:
  ImageFolder(const fs::path& folder, std::vector<std::string> classes, FolderListing listing)
      : prefix_(folder.string() + "/"), classes_(std::move(classes)), listing_(std::move(listing)) {}

  std::size_t size() const override { return listing_.files(); }
  const std::vector<std::string>& class_names() const override { return classes_; }

  Content content() const override { return Content::files; }

  void fetch(std::size_t index, Record& record) const override {
    const FolderListing::Folder& folder = listing_.folder_of(index);
    record.label = folder.label;
    write_path(index, folder, record.name);
    read_file(record.name, record.buffer, max_image_file_bytes);
    record.file = record.buffer;
  }

  std::string describe(std::size_t index) const override {
    std::string path;
    write_path(index, listing_.folder_of(index), path);
    return path;
  }

 private:
  void write_path(std::size_t index, const FolderListing::Folder& folder, std::string& path) const {
    path.assign(prefix_).append(folder.path).append("/").append(listing_.name_of(index, folder));
  }

  std::string prefix_;
  std::vector<std::string> classes_;
  FolderListing listing_;
};

FolderListing listing_of(const fs::path& split, const std::vector<std::string>& classes,
                         const IndexOptions& options) {
  if (!options.folder) return list_classes(split, classes);
  const FolderIndex index(*options.folder, split);
  if (std::optional<FolderListing> known = index.load(classes.size())) return std::move(*known);
  const std::time_t now = std::time(nullptr);
  FolderListing listing = list_classes(split, classes);
  if (listing.files() >= options.least_files) index.save(listing, now);
  return listing;
}

std::vector<std::string> classes_in(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw FormatError({.where = folder.parent_path().string(),
                       .what = fmt::format("no folder '{}'", folder.filename().string()),
                       .expected = "train/ and val/ with one folder of images per class"});
  }
  std::vector<std::string> classes = folders_in(folder);
  if (classes.size() < 2) {
    throw FormatError(
        {.where = folder.string(),
         .what = "too few classes",
         .got = classes.empty() ? "no class folders" : fmt::format("only '{}'", classes.front()),
         .expected = "one folder of images for each of at least two classes"});
  }
  return classes;
}

void require_same_classes(const fs::path& root, const std::vector<std::string>& train,
                          const std::vector<std::string>& val) {
  const auto first_missing = [](const std::vector<std::string>& from, const std::vector<std::string>& in) {
    return std::find_if(from.begin(), from.end(), [&](const std::string& name) {
      return !std::binary_search(in.begin(), in.end(), name);
    });
  };
  const auto report = [&](const std::string& name, const char* has, const char* lacks) {
    throw FormatError({.where = root.string(),
                       .what = "train/ and val/ have different classes",
                       .got = fmt::format("'{}' in {}/ but not in {}/", name, has, lacks)});
  };
  if (const auto at = first_missing(train, val); at != train.end()) report(*at, "train", "val");
  if (const auto at = first_missing(val, train); at != val.end()) report(*at, "val", "train");
}

}  // namespace

IndexOptions IndexOptions::standard() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing here sets variables
  const char* word = std::getenv("QTRAIN_INDEX_CACHE");
  const std::string value = word == nullptr ? "on" : word;
  if (value != "on" && value != "off") {
    throw ValueError({.where = "QTRAIN_INDEX_CACHE",
                      .what = "not a switch",
                      .got = "'" + value + "'",
                      .expected = "on or off"});
  }
  IndexOptions options;
  if (const auto cache = cache_folder(); cache && value == "on") options.folder = *cache / "folders";
  return options;
}

std::shared_ptr<const Dataset> open_image_folder(const fs::path& root, Split split,
                                                 const IndexOptions& index) {
  if (!fs::is_directory(root)) {
    throw IoError(
        {.where = root.string(),
         .what = fs::exists(root) ? "the dataset's path is not a folder" : "the dataset's folder is missing",
         .hint = suggest(root.string(), {"demo"}, "see 'qtrain list datasets' for other kinds")});
  }
  std::vector<std::string> train = classes_in(root / "train");
  const std::vector<std::string> val = classes_in(root / "val");
  require_same_classes(root, train, val);
  const fs::path folder = root / (split == Split::train ? "train" : "val");
  FolderListing listing = listing_of(folder, train, index);
  return std::make_shared<ImageFolder>(folder, std::move(train), std::move(listing));
}

}  // namespace qtrain::data
