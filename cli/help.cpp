#include "cli/help.h"

#include <fmt/format.h>

namespace qtrain::cli {
namespace {

constexpr std::size_t help_column = 36;

// "  -b, --batch-size N                  images per step [64]"
std::string help_line(const std::string& flag, const std::string& help, const std::string& value) {
  std::string line = "  " + flag;
  if (line.size() + 2 > help_column) {
    line += "\n" + std::string(help_column, ' ');
  } else {
    line.resize(help_column, ' ');
  }
  line += help;
  if (!value.empty()) line += " [" + value + "]";
  return line + "\n";
}

std::string flag_text(const Field& field) {
  if (field.positional) return value_text(field);
  std::string text = field.short_name.empty() ? "" : fmt::format("-{}, ", field.short_name);
  text += "--" + field.name;
  if (!field.alias.empty()) text += ", --" + field.alias;
  return text + " " + value_text(field);
}

}  // namespace

std::string help_text(const CommandText& text, const Fields& fields) {
  std::string usage = fmt::format("Usage: {} [FLAGS]", text.name);
  std::string body;
  std::string group;
  for (const Field& field : fields) {
    if (field.positional)
      usage += field.required ? " " + value_text(field) : fmt::format(" [{}]", value_text(field));
    if (field.group != group) body += fmt::format("\n{}:\n", field.group);
    group = field.group;
    body += help_line(flag_text(field), field.help, field.required ? "required" : text_of(field));
  }
  body += help_line("-h, --help", "this text", "");
  return fmt::format("{}\n\n{}\n{}\nExamples:\n{}\n", usage, text.about, body, text.examples);
}

}  // namespace qtrain::cli
