#include "data/sets/cifar.h"

#include <fmt/format.h>

#include <fstream>

#include "data/sets/file_bytes.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr int side = 32;
constexpr std::size_t plane = std::size_t{side} * side;
constexpr std::size_t pixel_bytes = 3 * plane;

// A record is `label_bytes` bytes, the last of them the label, then the R, G and B planes.
struct Layout {
  const char* subfolder;
  const char* names_file;
  std::size_t classes;
  std::size_t label_bytes;
  std::vector<std::string> train;
  std::vector<std::string> val;
};

const Layout& layout_of(CifarKind kind) {
  static const Layout cifar10 = {
      "cifar-10-batches-bin",
      "batches.meta.txt",
      10,
      1,
      {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
      {"test_batch.bin"}};
  static const Layout cifar100 = {"cifar-100-binary", "fine_label_names.txt", 100, 2, {"train.bin"},
                                  {"test.bin"}};
  return kind == CifarKind::cifar10 ? cifar10 : cifar100;
}

std::vector<std::string> read_names(const fs::path& file, std::size_t classes) {
  std::vector<std::string> names;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line) && names.size() < classes;) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (names.size() != classes) {
    names.clear();
    for (std::size_t i = 0; i < classes; ++i) names.push_back(std::to_string(i));
  }
  return names;
}

class Cifar final : public Dataset {
 public:
  Cifar(const fs::path& folder, const Layout& layout, Split split)
      : label_bytes_(layout.label_bytes),
        record_(layout.label_bytes + pixel_bytes),
        classes_(read_names(folder / layout.names_file, layout.classes)) {
    for (const std::string& name : split == Split::train ? layout.train : layout.val) {
      File& file = files_.emplace_back(File{folder / name, size_, {}});
      read_file(file.path, file.bytes);
      size_ += check(file);
    }
  }

  std::size_t size() const override { return size_; }
  const std::vector<std::string>& class_names() const override { return classes_; }
  Size image_size() const override { return {side, side}; }

  Content content() const override { return Content::pixels; }

  void fetch(std::size_t index, Record& sample) const override {
    const File& file = file_of(index);
    const std::byte* record = file.bytes.data() + (index - file.first) * record_;
    const std::byte* planes = record + label_bytes_;
    sample.name = describe(index);
    sample.label = std::to_integer<std::int64_t>(record[label_bytes_ - 1]);
    sample.image.width = side;
    sample.image.height = side;
    sample.image.rgb.resize(pixel_bytes);
    for (std::size_t i = 0; i < pixel_bytes; ++i) {
      sample.image.rgb[i] = std::to_integer<std::uint8_t>(planes[i % 3 * plane + i / 3]);
    }
  }

  std::string describe(std::size_t index) const override {
    const File& file = file_of(index);
    return fmt::format("{}, image {}", file.path.string(), index - file.first);
  }

 private:
  struct File {
    fs::path path;
    std::size_t first;  // index of its first image
    std::vector<std::byte> bytes;
  };

  // The number of records.
  std::size_t check(const File& file) const {
    const std::size_t count = file.bytes.size() / record_;
    if (count == 0 || file.bytes.size() % record_ != 0) {
      throw FormatError({.where = file.path.string(),
                         .what = "not a CIFAR file, or an incomplete one",
                         .got = fmt::format("{} bytes", file.bytes.size()),
                         .expected = fmt::format("a multiple of {} bytes", record_)});
    }
    for (std::size_t i = 0; i < count; ++i) {
      const auto label = std::to_integer<std::size_t>(file.bytes[i * record_ + label_bytes_ - 1]);
      if (label < classes_.size()) continue;
      throw FormatError({.where = fmt::format("{}, image {}", file.path.string(), i),
                         .what = "label out of range",
                         .got = std::to_string(label),
                         .expected = fmt::format("0 to {}", classes_.size() - 1),
                         .hint = "cifar10: and cifar100: have different records"});
    }
    return count;
  }

  const File& file_of(std::size_t index) const {
    std::size_t i = files_.size() - 1;
    while (files_[i].first > index) --i;
    return files_[i];
  }

  std::size_t label_bytes_;
  std::size_t record_;
  std::vector<std::string> classes_;
  std::vector<File> files_;
  std::size_t size_ = 0;
};

}  // namespace

std::shared_ptr<const Dataset> open_cifar(const fs::path& folder, CifarKind kind, Split split) {
  if (!fs::is_directory(folder)) {
    throw IoError({.where = folder.string(), .what = "the dataset's folder is missing"});
  }
  const Layout& layout = layout_of(kind);
  const bool unpacked_inside = fs::is_directory(folder / layout.subfolder);
  return std::make_shared<Cifar>(unpacked_inside ? folder / layout.subfolder : folder, layout, split);
}

}  // namespace qtrain::data
