#include "data/sets/tar.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <thread>

#include "data/in_order.h"
#include "data/sets/mapped_file.h"
#include "data/sets/tar_samples.h"
#include "data/sets/tar_shards.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

class Tar final : public Dataset {
 public:
  explicit Tar(const std::vector<fs::path>& shards) {
    struct Scanned {
      std::optional<MappedFile> file;
      std::vector<TarSample> samples;
    };
    struct Nothing {};
    const auto scan = [&](std::size_t i, Nothing&, Scanned& shard) {
      shard.file.emplace(shards[i]);
      shard.file->expect_random_access();
      std::span<const std::byte> there;  // a label's page often holds the next header, too
      const auto bring = [&](std::span<const std::byte> part) {
        const bool inside = !there.empty() && part.data() >= there.data() && &part.back() <= &there.back();
        if (!inside) there = shard.file->bring(part);
      };
      shard.samples = read_tar_samples(shard.file->bytes(), shard.file->name(), bring);
    };
    // Headers lie far apart: it is the disk that threads wait for, so there may be more of them than cores.
    const auto threads = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 4, 16);
    make_in_order<Scanned, Nothing>(shards.size(), static_cast<int>(std::min(threads, shards.size())),
                                    2 * threads, scan, [&](std::size_t, Scanned& shard) {
                                      add(std::move(*shard.file), shard.samples);
                                      return true;
                                    });
  }

  std::size_t size() const override { return items_.size(); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  Content content() const override { return Content::files; }

  void fetch(std::size_t index, Record& record) const override {
    const Item& item = items_[index];
    record.label = item.label;
    record.name = describe(index);
    record.file = shards_[item.shard].bytes().subspan(item.offset, item.length);
    if (!record.file.empty()) shards_[item.shard].bring(record.file);
  }

  std::string describe(std::size_t index) const override {
    const Item& item = items_[index];
    return fmt::format("{}: {}", shards_[item.shard].name(),
                       std::string_view(names_).substr(item.name, item.name_length));
  }

  std::size_t largest_label() const {
    return std::max_element(items_.begin(), items_.end(),
                            [](const Item& a, const Item& b) { return a.label < b.label; })
        ->label;
  }

  void set_classes(std::vector<std::string> names) {
    classes_ = std::move(names);
    const auto wrong = std::find_if(items_.begin(), items_.end(),
                                    [this](const Item& item) { return item.label >= classes_.size(); });
    if (wrong != items_.end()) {
      throw FormatError({.where = describe(static_cast<std::size_t>(wrong - items_.begin())),
                         .what = "a label without a name in classes.txt",
                         .got = std::to_string(wrong->label),
                         .expected = fmt::format("0 to {}", classes_.size() - 1),
                         .hint = ""});
    }
  }

 private:
  // As in an ImageFolder, names lie in one string.
  struct Item {
    std::size_t offset;
    std::size_t name;
    std::uint32_t name_length;
    std::uint32_t length;
    std::uint32_t shard;
    std::uint32_t label;
  };

  void add(MappedFile shard, const std::vector<TarSample>& samples) {
    for (const TarSample& sample : samples) {
      items_.push_back({sample.offset, names_.size(), static_cast<std::uint32_t>(sample.name.size()),
                        sample.length, static_cast<std::uint32_t>(shards_.size()), sample.label});
      names_ += sample.name;
    }
    shards_.push_back(std::move(shard));
  }

  std::vector<MappedFile> shards_;
  std::vector<Item> items_;
  std::string names_;
  std::vector<std::string> classes_;
};

std::vector<std::string> read_lines(const fs::path& path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

// Of classes.txt; none without it.
std::vector<std::string> named_classes(const fs::path& shard) {
  const fs::path folder = shard.parent_path();
  const bool split_folder = folder.filename() == "train" || folder.filename() == "val";
  std::vector<std::string> names = read_lines(folder / "classes.txt");
  if (names.empty() && split_folder) names = read_lines(folder.parent_path() / "classes.txt");
  return names;
}

}  // namespace

std::shared_ptr<const Dataset> open_tar(const std::string& where, Split split) {
  const std::vector<fs::path> shards = find_tar_shards(where, split);
  auto set = std::make_shared<Tar>(shards);
  std::vector<std::string> classes = named_classes(shards.front());
  if (classes.empty()) {
    const Tar other(find_tar_shards(where, split == Split::train ? Split::val : Split::train));
    const std::size_t largest = std::max(set->largest_label(), other.largest_label());
    for (std::size_t i = 0; i <= largest; ++i) classes.push_back(std::to_string(i));
  }
  if (classes.size() < 2) {
    throw FormatError({.where = where, .what = "too few classes", .got = "1", .expected = "at least two"});
  }
  set->set_classes(std::move(classes));
  return set;
}

}  // namespace qtrain::data
