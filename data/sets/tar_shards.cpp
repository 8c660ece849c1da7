#include "data/sets/tar_shards.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>

#include "engine/core/error.h"

namespace qtrain::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_shards = 1'000'000;
constexpr auto wildcards = "*?[";

std::string name_of(Split split) {
  return split == Split::train ? "train" : "val";
}

std::optional<Split> split_of(const fs::path& shard) {
  const std::string folder = shard.parent_path().filename().string();
  const std::string file = shard.filename().string();
  for (const Split split : {Split::train, Split::val})
    if (folder == name_of(split)) return split;
  for (const Split split : {Split::train, Split::val})
    if (file.find(name_of(split)) != std::string::npos) return split;
  return std::nullopt;
}

// The archives directly in a folder; none where there is no folder.
std::vector<fs::path> archives_in(const fs::path& folder) {
  std::vector<fs::path> archives;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".tar") && name.front() != '.') archives.push_back(entry.path());
  }
  return archives;
}

// "000..146" as its numbers, as wide as the first; nothing for other texts.
std::vector<std::string> numbers_of(const std::string& text) {
  const std::size_t dots = text.find("..");
  if (dots == std::string::npos) return {};
  const char* const begin = text.data();
  std::size_t first = 0;
  std::size_t last = 0;
  const auto a = std::from_chars(begin, begin + dots, first);
  const auto b = std::from_chars(begin + dots + 2, begin + text.size(), last);
  const bool numbers =
      a.ec == std::errc() && b.ec == std::errc() && a.ptr == begin + dots && b.ptr == begin + text.size();
  if (!numbers) return {};
  if (last < first || last - first >= max_shards)
    throw ValueError({.where = "{" + text + "}",
                      .what = "a range of numbers that is empty or too large",
                      .got = "",
                      .expected = fmt::format("at most {} shards", max_shards),
                      .hint = ""});
  std::vector<std::string> all;
  for (std::size_t number = first; number <= last; ++number)
    all.push_back(fmt::format("{:0{}}", number, dots));
  return all;
}

// Replaces the first pair of braces by each of its parts, and what comes of it further. glob() could do
// commas, but is silent about what isn't there.
void expand_braces(const std::string& pattern, std::vector<std::string>& all) {
  const std::size_t open = pattern.find('{');
  int depth = 0;
  std::vector<std::string> parts(1);
  std::size_t at = std::min(open, pattern.size());
  for (; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c == '}' && --depth == 0) break;
    if (c == ',' && depth == 1)
      parts.emplace_back();
    else if (depth > 0)
      parts.back() += c;
    if (c == '{') ++depth;
  }
  if (at == pattern.size()) {
    if (all.size() >= max_shards)
      throw ValueError(
          {.where = pattern, .what = "braces for too many shards", .got = "", .expected = "", .hint = ""});
    all.push_back(pattern);
    return;
  }
  if (parts.size() == 1) {
    std::vector<std::string> numbers = numbers_of(parts.front());
    if (!numbers.empty()) parts = std::move(numbers);
  }
  for (const std::string& part : parts)
    expand_braces(pattern.substr(0, open) + part + pattern.substr(at + 1), all);
}

std::vector<fs::path> matches_of(const std::string& pattern) {
  std::vector<std::string> patterns;
  expand_braces(pattern, patterns);
  std::vector<fs::path> found;
  for (const std::string& each : patterns) {
    if (each.find_first_of(wildcards) ==
        std::string::npos) {  // missing ones are reported when they are opened
      found.emplace_back(each);
      continue;
    }
    glob_t matches{};
    if (::glob(each.c_str(), 0, nullptr, &matches) == 0)
      found.insert(found.end(), matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
    ::globfree(&matches);
  }
  return found;
}

}  // namespace

std::vector<fs::path> find_tar_shards(const std::string& where, Split split) {
  std::vector<fs::path> candidates;
  if (fs::is_directory(where)) {
    for (const fs::path& folder : {fs::path(where), fs::path(where) / "train", fs::path(where) / "val"}) {
      const std::vector<fs::path> inside = archives_in(folder);
      candidates.insert(candidates.end(), inside.begin(), inside.end());
    }
  } else if (where.find_first_of("*?[{") != std::string::npos) {
    candidates = matches_of(where);
  } else {
    throw IoError({.where = where,
                   .what = fs::exists(where) ? "neither a folder of shards nor a pattern"
                                             : "the folder of the shards is missing",
                   .got = "",
                   .expected = "a folder, or a pattern such as DIR/{train,val}-*.tar",
                   .hint = ""});
  }
  std::erase_if(candidates, [split](const fs::path& path) { return split_of(path) != split; });
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  if (candidates.empty()) {
    const std::string name = name_of(split);
    throw FormatError({.where = where,
                       .what = fmt::format("no {} shards", name),
                       .got = "",
                       .expected = fmt::format("{0}/*.tar or *{0}*.tar", name),
                       .hint = ""});
  }
  return candidates;
}

bool is_tar_folder(const fs::path& folder) {
  if (!archives_in(folder / "train").empty()) return true;
  // An ImageFolder may well lie beside the archives that it was unpacked from.
  std::error_code ignored;
  const std::vector<fs::path> archives = archives_in(folder);
  return !fs::exists(folder / "train", ignored) &&
         std::any_of(archives.begin(), archives.end(),
                     [](const fs::path& path) { return split_of(path).has_value(); });
}

}  // namespace qtrain::data
