#include "data/sets/tar_samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "data/sets/tar_archive.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

constexpr std::size_t max_label_bytes = 1 << 20;
constexpr std::size_t max_image_bytes = std::size_t{512} << 20;

enum class Part { image, label, json, other };

// A member's name in two parts: what names the sample, and what its part is.
struct Name {
  std::string_view key;
  Part part = Part::other;
};

Name split_name(std::string_view name) {
  while (name.starts_with("./")) name.remove_prefix(2);
  const std::size_t file = name.rfind('/') + 1;  // 0 without one
  const std::size_t dot = name.find('.', file);
  if (dot == std::string_view::npos || dot == file) return {name, Part::other};
  std::string ending(name.substr(dot + 1));
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  static constexpr std::array<std::string_view, 8> images = {"jpg", "jpeg", "png", "ppm",
                                                             "pgm", "bmp",  "gif", "psd"};
  Part part = Part::other;
  if (std::find(images.begin(), images.end(), ending) != images.end()) part = Part::image;
  if (ending == "cls" || ending == "cls.txt") part = Part::label;
  if (ending == "json") part = Part::json;
  return {name.substr(0, dot), part};
}

std::string_view trimmed(std::span<const std::byte> bytes) {
  constexpr std::string_view blanks(" \t\r\n\0", 5);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t first = text.find_first_not_of(blanks);
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::optional<std::uint32_t> decimal(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size() && value <= max_tar_label;
  return whole ? std::optional(value) : std::nullopt;
}

std::optional<std::uint32_t> label_in_json(std::span<const std::byte> bytes) {
  const auto* first = reinterpret_cast<const char*>(bytes.data());
  const auto json = nlohmann::json::parse(first, first + bytes.size(), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  for (const char* key : {"label", "cls"}) {
    const auto found = json.find(key);
    if (found == json.end()) continue;
    const bool fits = found->is_number_unsigned() && found->get<std::uint64_t>() <= max_tar_label;
    return fits ? std::optional(found->get<std::uint32_t>()) : std::nullopt;
  }
  return std::nullopt;
}

// A sample while its members are being found; a member without a name hasn't been met yet.
struct Group {
  TarMember image;
  TarMember label;
  TarMember json;
};

class Collector {
 public:
  explicit Collector(TarReader& reader) : reader_(reader) {
    for (TarMember member; reader_.next(member);) add(member);
  }

  std::vector<TarSample> samples() const {
    std::vector<TarSample> samples;
    for (const Group& group : groups_) {
      const bool labelled = !group.label.name.empty();
      if (group.image.name.empty()) {
        if (labelled) reader_.fail(group.label.header, "a label without an image", quoted(group.label));
        continue;
      }
      const auto label = label_of(group);
      samples.push_back(
          {group.image.name, group.image.offset, static_cast<std::uint32_t>(group.image.size), label});
    }
    if (samples.empty())
      reader_.fail(0, "no samples in the archive", "",
                   "a sample is an image and its label: 0001.jpg, 0001.cls");
    return samples;
  }

 private:
  static std::string quoted(const TarMember& member) { return "'" + member.name + "'"; }

  void add(const TarMember& member) {
    const Name name = split_name(member.name);
    if (name.part == Part::other || member.type == '5') return;
    if (member.type != '0')
      reader_.fail(member.header, "a sample's member is no file",
                   fmt::format("{} of type '{}'", quoted(member), member.type),
                   "tar --dereference --hard-dereference puts files in place of links");
    const std::size_t most = name.part == Part::image ? max_image_bytes : max_label_bytes;
    if (member.size > most)
      reader_.fail(member.header, "a member is too large",
                   fmt::format("{}, {} bytes", quoted(member), member.size));
    const auto [at, is_new] = places_.try_emplace(std::string(name.key), groups_.size());
    if (is_new) groups_.emplace_back();
    Group& group = groups_[at->second];
    TarMember& place = name.part == Part::image   ? group.image
                       : name.part == Part::label ? group.label
                                                  : group.json;
    if (!place.name.empty())
      reader_.fail(member.header, "a sample has two members of a kind",
                   fmt::format("{} beside {}", quoted(member), quoted(place)));
    place = member;
  }

  std::uint32_t label_of(const Group& group) const {
    const bool plain = !group.label.name.empty();
    const TarMember& member = plain ? group.label : group.json;
    if (member.name.empty())
      reader_.fail(group.image.header, "an image without a label", quoted(group.image));
    const auto bytes = reader_.content(member);
    const auto label = plain ? decimal(trimmed(bytes)) : label_in_json(bytes);
    if (!label)
      reader_.fail(member.header, "a label that is no number", quoted(member),
                   plain ? fmt::format("labels are 0 to {}", max_tar_label)
                         : fmt::format("\"label\" or \"cls\" is an integer, 0 to {}", max_tar_label));
    return *label;
  }

  TarReader& reader_;
  std::vector<Group> groups_;
  std::unordered_map<std::string, std::size_t> places_;  // of keys in groups_
};

}  // namespace

std::vector<TarSample> read_tar_samples(std::span<const std::byte> archive,
                                        const std::string& name_for_errors,
                                        const std::function<void(std::span<const std::byte>)>& bring) {
  TarReader reader(archive, name_for_errors, bring);
  return Collector(reader).samples();
}

}  // namespace qtrain::data
