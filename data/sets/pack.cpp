#include "data/sets/pack.h"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <limits>

#include "data/sets/mapped_file.h"
#include "engine/core/error.h"
#include "engine/io/checksum.h"

namespace qtrain::data {
namespace {

class Pack final : public Dataset {
 public:
  Pack(const std::filesystem::path& path, Split split)
      : file_(path), index_(file_.bytes(), file_.name()), split_(split) {
    file_.expect_random_access();
  }

  std::size_t size() const override { return index_.size(split_); }
  const std::vector<std::string>& class_names() const override { return index_.classes(); }
  Content content() const override { return Content::files; }

  void fetch(std::size_t index, Record& record) const override {
    record.name = file_.name();
    file_.bring(file_.bytes().last(1));  // a shortened file loses its index first
    const PackEntry entry = index_.entry(split_, index);
    record.label = entry.label;
    record.name = describe(index);
    record.file = file_.bytes().subspan(static_cast<std::size_t>(entry.offset), entry.length);
    file_.bring(record.file);
    if (checksum_64(record.file) != entry.checksum) {
      throw FormatError({.where = record.name,
                         .what = "the record is damaged: wrong checksum",
                         .got = fmt::format("{} bytes at {}", entry.length, entry.offset),
                         .expected = "",
                         .hint = "copy the pack again, or make it anew"});
    }
  }

  std::string describe(std::size_t index) const override {
    return fmt::format("{}: {}", file_.name(), index_.name(split_, index));
  }

 private:
  MappedFile file_;
  PackIndex index_;
  Split split_;
};

std::span<const std::byte> text_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

bool is_pack(const std::filesystem::path& path) {
  std::error_code ignored;  // what can't be looked at is no pack
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::array<char, pack_magic.size()> start{};
  std::ifstream(path, std::ios::binary).read(start.data(), start.size());
  return std::string_view(start.data(), start.size()) == pack_magic;
}

std::shared_ptr<const Dataset> open_pack(const std::filesystem::path& path, Split split) {
  return std::make_shared<Pack>(path, split);
}

PackWriter::PackWriter(const std::filesystem::path& path) : file_(path) {
  write(text_bytes(pack_magic));
  write(std::as_bytes(std::span(&pack_version, 1)));
}

void PackWriter::write(std::span<const std::byte> bytes) {
  file_.write(bytes);
  position_ += bytes.size();
}

void PackWriter::align() {
  static constexpr std::array<std::byte, pack_alignment> zeros{};
  write(std::span(zeros).first((pack_alignment - position_ % pack_alignment) % pack_alignment));
}

void PackWriter::append(Split split, std::int64_t label, std::string_view name,
                        std::span<const std::byte> file) {
  if (file.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw ValueError({.where = std::string(name),
                      .what = "too large for a pack",
                      .got = fmt::format("{} bytes", file.size()),
                      .expected = "less than 4 GiB",
                      .hint = ""});
  }
  align();
  names_ += name;
  entries_.push_back({.offset = position_,
                      .checksum = checksum_64(file),
                      .name_end = names_.size(),
                      .length = static_cast<std::uint32_t>(file.size()),
                      .label = static_cast<std::uint32_t>(label)});
  if (split == Split::train) ++train_;
  write(file);
}

void PackWriter::finish(const std::vector<std::string>& classes) {
  align();
  std::string end(reinterpret_cast<const char*>(entries_.data()), entries_.size() * sizeof(PackEntry));
  end += names_;
  const std::size_t before = end.size();
  for (const std::string& name : classes) {
    const auto length = static_cast<std::uint32_t>(name.size());
    end.append(reinterpret_cast<const char*>(&length), sizeof length);
    end += name;
  }
  PackFooter footer{.file_bytes = position_ + end.size() + sizeof footer,
                    .index_offset = position_,
                    .train_images = train_,
                    .val_images = entries_.size() - train_,
                    .names_bytes = names_.size(),
                    .classes = classes.size(),
                    .classes_bytes = end.size() - before,
                    .checksum = 0,
                    .magic = {}};
  pack_end_magic.copy(footer.magic, sizeof footer.magic);
  const std::string_view fields(reinterpret_cast<const char*>(&footer), sizeof footer);
  end += fields.substr(0, offsetof(PackFooter, checksum));
  footer.checksum = checksum_64(text_bytes(end));
  end += fields.substr(offsetof(PackFooter, checksum));
  write(text_bytes(end));
  file_.commit();
}

}  // namespace qtrain::data
