#include "data/sets/pack_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/core/error.h"
#include "engine/io/checksum.h"

namespace qtrain::data {
namespace {

[[noreturn]] void fail(const std::string& file, std::string what, std::string got = "",
                       std::string expected = "", std::string hint = "") {
  throw FormatError({file, std::move(what), std::move(got), std::move(expected), std::move(hint)});
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void check_header(std::span<const std::byte> file, const std::string& name) {
  const auto magic = text_of(file.first(std::min(file.size(), pack_magic.size())));
  if (magic != pack_magic) fail(name, "not a pack", "", "a file made by 'qtrain pack'");
  if (file.size() < pack_header_bytes + sizeof(PackFooter))
    fail(name, "the pack is cut off", fmt::format("{} bytes", file.size()));
  std::uint32_t version = 0;
  std::memcpy(&version, file.data() + pack_magic.size(), sizeof version);
  if (version != pack_version)
    fail(name, "a pack of another version", std::to_string(version), std::to_string(pack_version),
         "make it anew with 'qtrain pack'");
}

// The footer, once the place of the index follows from it without doubt and its checksum is right.
PackFooter read_footer(std::span<const std::byte> file, const std::string& name) {
  PackFooter footer;
  std::memcpy(&footer, file.data() + file.size() - sizeof footer, sizeof footer);
  if (std::string_view(footer.magic, sizeof footer.magic) != pack_end_magic)
    fail(name, "the pack is cut off or damaged", "no end mark behind the index");
  if (footer.file_bytes != file.size())
    fail(name, "the pack has the wrong length", fmt::format("{} bytes", file.size()),
         std::to_string(footer.file_bytes));
  const std::size_t index_end = file.size() - sizeof footer;
  if (footer.index_offset < pack_header_bytes || footer.index_offset > index_end)
    fail(name, "the pack's index is outside of the file", std::to_string(footer.index_offset));
  // No sum of these overflows once none is larger than the file.
  const std::uint64_t index_bytes = index_end - footer.index_offset;
  const std::uint64_t most = index_bytes / sizeof(PackEntry);
  const bool fits = footer.train_images <= most && footer.val_images <= most &&
                    footer.names_bytes <= index_bytes && footer.classes_bytes <= index_bytes &&
                    (footer.train_images + footer.val_images) * sizeof(PackEntry) + footer.names_bytes +
                            footer.classes_bytes ==
                        index_bytes;
  if (!fits)
    fail(name, "the parts of the pack's index don't fill it",
         fmt::format("{} + {} images, {} bytes of names, {} of classes in {}", footer.train_images,
                     footer.val_images, footer.names_bytes, footer.classes_bytes, index_bytes));
  const auto covered = file.subspan(footer.index_offset, index_bytes + offsetof(PackFooter, checksum));
  if (checksum_64(covered) != footer.checksum) fail(name, "the pack's index is damaged: wrong checksum");
  return footer;
}

std::vector<std::string> read_classes(std::span<const std::byte> bytes, std::uint64_t count,
                                      const std::string& name) {
  std::vector<std::string> classes;
  while (!bytes.empty()) {
    std::uint32_t length = 0;
    if (bytes.size() < sizeof length) break;
    std::memcpy(&length, bytes.data(), sizeof length);
    bytes = bytes.subspan(sizeof length);
    if (length > bytes.size()) fail(name, "the pack's class names are damaged");
    classes.emplace_back(text_of(bytes.first(length)));
    bytes = bytes.subspan(length);
  }
  if (!bytes.empty() || classes.size() != count || classes.empty())
    fail(name, "the pack's class names are damaged", fmt::format("{} names", classes.size()),
         std::to_string(count));
  return classes;
}

}  // namespace

PackIndex::PackIndex(std::span<const std::byte> file, const std::string& name_for_errors) {
  check_header(file, name_for_errors);
  const PackFooter footer = read_footer(file, name_for_errors);
  train_ = static_cast<std::size_t>(footer.train_images);
  entries_ = train_ + static_cast<std::size_t>(footer.val_images);
  const std::span<const std::byte> index = file.subspan(static_cast<std::size_t>(footer.index_offset));
  table_ = index.first(entries_ * sizeof(PackEntry));
  names_ = text_of(index.subspan(table_.size(), static_cast<std::size_t>(footer.names_bytes)));
  classes_ = read_classes(
      index.subspan(table_.size() + names_.size(), static_cast<std::size_t>(footer.classes_bytes)),
      footer.classes, name_for_errors);
  if (train_ == 0 || train_ == entries_) fail(name_for_errors, "a split of the pack has no images");
  check_entries(footer.index_offset, name_for_errors);
}

PackEntry PackIndex::at(std::size_t place) const {
  PackEntry entry;
  std::memcpy(&entry, table_.data() + place * sizeof entry, sizeof entry);
  return entry;
}

std::string_view PackIndex::name(Split split, std::size_t index) const {
  const std::size_t here = place(split, index);
  const auto begin = static_cast<std::size_t>(here == 0 ? 0 : at(here - 1).name_end);
  return names_.substr(begin, static_cast<std::size_t>(at(here).name_end) - begin);
}

void PackIndex::check_entries(std::uint64_t records_end, const std::string& file) const {
  std::uint64_t name_begin = 0;
  for (std::size_t i = 0; i < entries_; ++i) {
    const PackEntry entry = at(i);
    const bool fits = entry.offset >= pack_header_bytes && entry.offset <= records_end &&
                      entry.length <= records_end - entry.offset && entry.name_end >= name_begin &&
                      entry.name_end <= names_.size() && entry.label < classes_.size();
    if (!fits)
      fail(file, fmt::format("record {} of the pack is out of bounds", i),
           fmt::format("offset {}, length {}, label {}, name to {}", entry.offset, entry.length, entry.label,
                       entry.name_end),
           fmt::format("records up to {}, labels below {}, {} bytes of names", records_end, classes_.size(),
                       names_.size()));
    name_begin = entry.name_end;
  }
  if (name_begin != names_.size()) fail(file, "the names of the pack's records don't fill their place");
}

}  // namespace qtrain::data
