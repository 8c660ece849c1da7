#include "engine/core/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace qtrain {
namespace {

std::string render(const Diagnosis& d) {
  std::string text = d.where.empty() ? d.what : fmt::format("[{}] {}", d.where, d.what);
  if (!d.got.empty()) text += "; got " + d.got;
  if (!d.expected.empty()) text += "; expected " + d.expected;
  if (!d.hint.empty()) text += "; " + d.hint;
  // One line, whatever bytes a file name or a broken file brought in.
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

// Levenshtein distance: insertions, deletions and substitutions cost 1.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

Error::Error(const Diagnosis& diagnosis) : std::runtime_error(render(diagnosis)) {}

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string suggest(std::string_view name, const std::vector<std::string>& candidates,
                    std::string_view otherwise) {
  const std::string nearest = nearest_name(name, candidates);
  return nearest.empty() ? std::string(otherwise) : fmt::format("did you mean '{}'?", nearest);
}

}  // namespace qtrain
