#include "cli/quantizer_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <optional>
#include <span>
#include <sstream>

#include "cli/quantizer_figure.h"
#include "engine/core/error.h"
#include "engine/io/atomic_file.h"

namespace qtrain::cli {
namespace {

using Lines = std::vector<std::string>;
using quant::QuantizerInfo;
using quant::Role;

constexpr int picture_bits = 2;
constexpr const char* index_page = "README.md";
constexpr const char* index_picture = "all.svg";

Lines lines_of(const std::string& text) {
  Lines lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string text_of_lines(const Lines& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

Lines::difference_type index_of(const Lines& lines, const std::string& wanted) {
  return std::ranges::find(lines, wanted) - lines.begin();
}

std::optional<std::string> text_of_file(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// A cell of a table.
std::string cell(std::string_view text) {
  std::string result;
  for (const char c : text) result += c == '|' ? "\\|" : std::string(1, c);
  return result;
}

std::string values_text(const quant::OptionSpec& spec) {
  if (!spec.choices.empty()) return fmt::format("{}", fmt::join(spec.choices, ", "));
  if (spec.type == quant::OptionType::boolean) return "true, false";
  if (spec.type == quant::OptionType::real) return "number";
  return spec.type == quant::OptionType::integer ? "whole number" : "list";
}

// "weight, activation"
std::string role_names(const std::vector<Role>& roles) {
  std::vector<std::string_view> names;
  for (const Role role : roles) names.push_back(quant::name_of(role));
  return fmt::format("{}", fmt::join(names, ", "));
}

// The same text for several roles once: "s", or "weight: s; activation: alpha".
std::string by_role(const QuantizerInfo& info, const std::function<std::string(Role)>& text) {
  std::vector<std::pair<std::string, std::vector<Role>>> found;
  for (const Role role : info.roles) {
    const std::string value = text(role);
    const auto same = std::ranges::find_if(found, [&](const auto& entry) { return entry.first == value; });
    if (same == found.end()) {
      found.push_back({value, {role}});
    } else {
      same->second.push_back(role);
    }
  }
  if (found.size() == 1) return found[0].first;
  std::string all;
  for (const auto& [value, roles] : found)
    all += fmt::format("{}{}: {}", all.empty() ? "" : "; ", role_names(roles), value);
  return all;
}

std::shared_ptr<quant::Quantizer> make_if_possible(const QuantizerInfo& info, Role role, int bits) try {
  return quant::make_quantizer(info.name, role, bits, quant::LayerKind::convolution);
} catch (const ValueError&) {
  return nullptr;
}

// The widths that round: "1 to 31", "1, 2".
std::string bits_of(const QuantizerInfo& info, Role role) {
  std::vector<std::string> runs;
  for (int bits = 1; bits < quant::float_bits; ++bits) {
    int last = bits;
    while (last < quant::float_bits && make_if_possible(info, role, last) != nullptr) ++last;
    if (last == bits) continue;
    runs.push_back(last - bits == 1 ? std::to_string(bits) : fmt::format("{} to {}", bits, last - 1));
    bits = last;
  }
  return fmt::format("{}", fmt::join(runs, ", "));
}

std::string learned_by(const QuantizerInfo& info, Role role) {
  std::vector<std::string> names;
  const auto quantizer = make_if_possible(info, role, quant::nearest_bits(info, role, picture_bits));
  if (quantizer != nullptr)
    for (const NamedTensor& p : quantizer->named_parameters()) names.push_back(fmt::format("`{}`", p.name));
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

std::vector<QuantizerCurves> curves_of(const QuantizerInfo& info, std::int64_t points) {
  std::vector<QuantizerCurves> curves;
  for (const Role role : {Role::weight, Role::activation})
    if (info.has_role(role))
      curves.push_back(sample_curves({.quantizer = info.name,
                                      .role = role,
                                      .bits = quant::nearest_bits(info, role, picture_bits),
                                      .points = points}));
  return curves;
}

std::string index_table(const Quantizers& all) {
  Lines lines = {"| | what | quantizes | bits | learned | source |", "|---|---|---|---|---|---|"};
  for (const QuantizerInfo* info : all)
    lines.push_back(
        fmt::format("| [{0}]({0}.md) | {1} | {2} | {3} | {4} | {5} |", info->name, cell(info->summary),
                    role_names(info->roles), by_role(*info, [&](Role r) { return bits_of(*info, r); }),
                    by_role(*info, [&](Role r) { return learned_by(*info, r); }), cell(info->source)));
  return text_of_lines(lines);
}

// The text and the axes of a picture, without its curves.
std::string lettering(const std::string& svg) {
  constexpr std::string_view opening = " d=\"";
  std::string text;
  std::size_t from = 0;
  for (std::size_t at = svg.find(opening); at != std::string::npos; at = svg.find(opening, from)) {
    text += svg.substr(from, at - from);
    from = svg.find('"', at + opening.size());
    if (from == std::string::npos) return text;
  }
  return text + svg.substr(from);
}

// One file of the folder and what it should hold; unset: it can't be made.
struct Expected {
  std::filesystem::path path;
  std::optional<std::string> text;
  bool picture = false;
};

std::vector<Expected> expected_files(const std::filesystem::path& folder, const Quantizers& all) {
  std::vector<Expected> files;
  const auto page = [&](const std::string& name, const auto& update) {
    const auto old = text_of_file(folder / name);
    files.push_back({folder / name, old ? std::optional(update(*old)) : std::nullopt, false});
  };
  for (const QuantizerInfo* info : all) {
    page(info->name + ".md", [&](const std::string& old) { return updated_page(old, *info); });
    files.push_back({folder / (info->name + ".svg"), picture_of(*info), true});
  }
  page(index_page, [&](const std::string& old) { return updated_index(old, all); });
  files.push_back({folder / index_picture, picture_of_all(all), true});
  return files;
}

std::string missing_text(const std::filesystem::path& path) {
  return fmt::format("{} is missing: a page is written by hand, see docs/adding-a-quantizer.md",
                     path.string());
}

}  // namespace

Quantizers documented_quantizers() {
  Quantizers all = quant::quantizers();
  std::erase_if(all, [](const QuantizerInfo* info) { return info->name == "none"; });
  return all;
}

std::string with_block(const std::string& page, const std::string& name, const std::string& heading,
                       const std::string& block) {
  Lines lines = lines_of(page);
  Lines inserted = {fmt::format("<!-- {} -->", name)};
  for (const std::string& line : lines_of(block)) inserted.push_back(line);
  inserted.push_back(fmt::format("<!-- /{} -->", name));
  const auto size = static_cast<Lines::difference_type>(lines.size());
  const auto replace = [&](Lines::difference_type from, Lines::difference_type to) {
    lines.erase(lines.begin() + from, lines.begin() + to);
    lines.insert(lines.begin() + from, inserted.begin(), inserted.end());
    return text_of_lines(lines);
  };
  const auto begin = index_of(lines, inserted.front());
  const auto end = index_of(lines, inserted.back());
  if (begin < end && end < size) return replace(begin, end + 1);

  const auto top = index_of(lines, heading);
  if (top == size) {
    lines.insert(lines.end(), {"", heading, ""});
    return replace(size + 3, size + 3);
  }
  const auto next_heading = std::find_if(lines.begin() + top + 1, lines.end(),
                                         [](const std::string& l) { return l.starts_with("#"); });
  const auto is_row = [](const std::string& l) { return l.starts_with("|"); };
  const auto table = std::find_if(lines.begin() + top + 1, next_heading, is_row);
  if (table != next_heading)
    return replace(table - lines.begin(), std::find_if_not(table, next_heading, is_row) - lines.begin());
  inserted.insert(inserted.begin(), "");
  return replace(top + 1, top + 1);
}

std::string with_picture(const std::string& page, const std::string& text, const std::string& file) {
  if (page.find(fmt::format("]({})", file)) != std::string::npos) return page;
  Lines lines = lines_of(page);
  const auto is_text = [](const std::string& l) { return !l.empty() && !l.starts_with("#"); };
  const auto first = std::ranges::find_if(lines, is_text);
  const auto last = std::find_if_not(first, lines.end(), is_text);
  lines.insert(last, {"", fmt::format("![{}]({})", text, file)});
  return text_of_lines(lines);
}

std::string option_table(const QuantizerInfo& info) {
  struct Row {
    quant::OptionSpec spec;
    std::vector<Role> roles;
  };
  std::vector<Row> rows;
  for (const Role role : info.roles)
    for (const quant::OptionSpec& spec : info.options(role)) {
      const auto same = std::ranges::find_if(rows, [&](const Row& row) {
        return row.spec.name == spec.name && row.spec.type == spec.type && row.spec.help == spec.help &&
               row.spec.default_value == spec.default_value && row.spec.choices == spec.choices;
      });
      if (same == rows.end()) {
        rows.push_back({spec, {role}});
      } else {
        same->roles.push_back(role);
      }
    }
  if (rows.empty()) return "There are none.\n";
  Lines lines = {"| `--set` | of | default | values | meaning |", "|---|---|---|---|---|"};
  for (const Row& row : rows)
    lines.push_back(fmt::format("| `{}` | {} | {} | {} | {} |", row.spec.name, role_names(row.roles),
                                cell(row.spec.default_value), cell(values_text(row.spec)),
                                cell(row.spec.help)));
  return text_of_lines(lines);
}

std::string updated_page(const std::string& page, const QuantizerInfo& info) {
  const std::string text = fmt::format("{}: y(x) and its gradients", info.name);
  return with_block(with_picture(page, text, info.name + ".svg"), "options", "## Options",
                    option_table(info));
}

std::string updated_index(const std::string& page, const Quantizers& all) {
  return with_block(with_picture(page, "y(x) and dy/dx of every quantizer", index_picture), "quantizers",
                    "## All quantizers", index_table(all));
}

std::string picture_of(const QuantizerInfo& info) {
  return draw_svg(figure_of(curves_of(info, 801)));
}

std::string picture_of_all(const Quantizers& all) {
  std::vector<QuantizerCurves> charts;
  for (const QuantizerInfo* info : all)
    for (QuantizerCurves& curves : curves_of(*info, 401)) charts.push_back(std::move(curves));
  return draw_svg(small_charts_of(charts));
}

std::vector<std::string> update_pages(const std::filesystem::path& folder, const Quantizers& all) {
  std::vector<std::string> left;
  for (const Expected& file : expected_files(folder, all)) {
    if (!file.text) {
      left.push_back(missing_text(file.path));
    } else if (text_of_file(file.path) != file.text) {
      write_file_atomically(file.path, std::as_bytes(std::span(*file.text)));
    }
  }
  return left;
}

std::vector<std::string> check_pages(const std::filesystem::path& folder, const Quantizers& all) {
  std::vector<std::string> problems;
  for (const Expected& file : expected_files(folder, all)) {
    const auto found = text_of_file(file.path);
    if (!file.text) {
      problems.push_back(missing_text(file.path));
    } else if (!found) {
      problems.push_back(file.path.string() + " is missing; ./dev docs makes it");
    } else if (file.picture ? lettering(*found) != lettering(*file.text) : *found != *file.text) {
      problems.push_back(file.path.string() + " isn't what the code says; ./dev docs corrects it");
    }
  }
  return problems;
}

}  // namespace qtrain::cli
