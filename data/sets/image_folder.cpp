#include "data/sets/image_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <system_error>

#include "data/sets/file_bytes.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr int max_depth = 16;
constexpr std::size_t max_image_file_bytes = std::size_t{512} << 20;

// The folders and files directly in a folder, sorted, hidden ones left out.
struct Listing {
  std::vector<std::string> folders;
  std::vector<std::string> files;
};

Listing list(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) {
    std::string name = at->path().filename().string();
    if (name.front() == '.') continue;
    std::error_code ignored;  // a dangling link counts as a file, so that reading it tells
    const bool is_folder = at->is_directory(ignored);
    (is_folder ? listing.folders : listing.files).push_back(std::move(name));
  }
  if (error) {
    throw IoError({.where = folder.string(), .what = "can't list the folder", .got = error.message()});
  }
  std::sort(listing.folders.begin(), listing.folders.end());
  std::sort(listing.files.begin(), listing.files.end());
  return listing;
}

class ImageFolder final : public Dataset {
 public:
  ImageFolder(const fs::path& folder, std::vector<std::string> classes) : classes_(std::move(classes)) {
    for (std::size_t label = 0; label < classes_.size(); ++label) {
      const std::size_t before = files_.size();
      std::vector<std::string> folders;
      collect_folders((folder / classes_[label]).string(), 0, folders);
      std::sort(folders.begin(), folders.end());  // as strings, like Python's sorted(os.walk())
      for (std::string& each : folders) add_files(std::move(each), static_cast<std::uint32_t>(label));
      if (files_.size() == before) {
        throw FormatError({.where = (folder / classes_[label]).string(), .what = "a class without images"});
      }
    }
  }

  std::size_t size() const override { return files_.size(); }
  const std::vector<std::string>& class_names() const override { return classes_; }

  Content content() const override { return Content::files; }

  void fetch(std::size_t index, Record& record) const override {
    record.label = files_[index].label;
    record.name = describe(index);
    read_file(record.name, record.buffer, max_image_file_bytes);
    record.file = record.buffer;
  }

  std::string describe(std::size_t index) const override {
    const File& file = files_[index];
    return folders_[file.folder] + "/" + names_.substr(file.name, file.length);
  }

 private:
  // ImageNet has 1.3 million files: names lie in one string, folders are written once.
  struct File {
    std::size_t name;
    std::uint32_t length;
    std::uint32_t folder;
    std::uint32_t label;
  };

  static void collect_folders(const std::string& folder, int depth, std::vector<std::string>& all) {
    if (depth > max_depth) {
      throw FormatError({.where = folder,
                         .what = fmt::format("folders nested more than {} deep", max_depth),
                         .hint = "is there a symbolic link to a folder above?"});
    }
    all.push_back(folder);
    for (const std::string& each : list(folder).folders) {
      std::string inner = folder;
      collect_folders(inner.append("/").append(each), depth + 1, all);
    }
  }

  void add_files(std::string folder, std::uint32_t label) {
    for (const std::string& name : list(folder).files) {
      files_.push_back({names_.size(), static_cast<std::uint32_t>(name.size()),
                        static_cast<std::uint32_t>(folders_.size()), label});
      names_ += name;
    }
    folders_.push_back(std::move(folder));
  }

  std::vector<std::string> classes_;
  std::vector<std::string> folders_;
  std::string names_;
  std::vector<File> files_;
};

std::vector<std::string> classes_in(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw FormatError({.where = folder.parent_path().string(),
                       .what = fmt::format("no folder '{}'", folder.filename().string()),
                       .expected = "train/ and val/ with one folder of images per class"});
  }
  std::vector<std::string> classes = list(folder).folders;
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

std::shared_ptr<const Dataset> open_image_folder(const fs::path& root, Split split) {
  if (!fs::is_directory(root)) {
    throw IoError(
        {.where = root.string(),
         .what = fs::exists(root) ? "the dataset's path is not a folder" : "the dataset's folder is missing",
         .hint = suggest(root.string(), {"demo"}, "see 'qtrain list datasets' for other kinds")});
  }
  std::vector<std::string> train = classes_in(root / "train");
  const std::vector<std::string> val = classes_in(root / "val");
  require_same_classes(root, train, val);
  return std::make_shared<ImageFolder>(root / (split == Split::train ? "train" : "val"), std::move(train));
}

}  // namespace qtrain::data
