#include "cli/golden_family.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/core/error.h"

namespace qtrain::cli {
namespace {

using Json = nlohmann::json;

// Reads fields of one JSON object; errors name the file and the object.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("not an object", object.type_name(), "an object");
  }

  const Json& at(const char* name) const {
    const auto found = object_.find(name);
    if (found == object_.end()) fail(fmt::format("no field '{}'", name), "", "");
    return *found;
  }
  std::string text(const char* name) const {
    const Json& value = at(name);
    if (!value.is_string()) fail_type(name, value, "a string");
    return value.get<std::string>();
  }
  bool flag(const char* name) const {
    const Json& value = at(name);
    if (!value.is_boolean()) fail_type(name, value, "true or false");
    return value.get<bool>();
  }
  std::optional<int> whole_or_null(const char* name) const {
    const Json& value = at(name);
    if (value.is_null()) return std::nullopt;
    if (!value.is_number_integer() || value < 0 || value > 64) fail_type(name, value, "null or 0..64");
    return value.get<int>();
  }
  const Json& list(const char* name) const {
    const Json& value = at(name);
    if (!value.is_array()) fail_type(name, value, "a list");
    return value;
  }
  [[noreturn]] void fail(const std::string& what, const std::string& got, const std::string& expected) const {
    throw FormatError({where_, what, got, expected, ""});
  }

 private:
  [[noreturn]] void fail_type(const char* name, const Json& value, const std::string& expected) const {
    const std::string shown = value.is_structured() ? value.type_name() : value.dump();
    fail(fmt::format("field '{}'", name), shown.substr(0, 60), expected);
  }

  const Json& object_;
  std::string where_;
};

std::string option_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string joined;
  for (const Json& element : value) joined += (joined.empty() ? "" : ",") + option_text(element);
  return joined;
}

GoldenCase read_case(const Json& json, const TensorMap& tensors, const std::string& where,
                     const std::string& tensor_file) {
  const Fields fields(json, where);
  GoldenCase result;
  result.name = fields.text("name");
  const Fields named(json, fmt::format("{}, case {}", where, result.name));
  result.role = named.text("role");
  result.bits = named.whole_or_null("bits");
  result.training = named.flag("training");
  const Json& options = named.at("options");
  if (!options.is_object()) named.fail("field 'options'", options.type_name(), "an object");
  for (const auto& [key, value] : options.items()) result.options[key] = option_text(value);
  for (const Json& tensor : named.list("tensors")) {
    if (!tensor.is_string()) named.fail("a tensor's name", tensor.type_name(), "a string");
    const auto name = tensor.get<std::string>();
    const auto found = tensors.find(result.name + "." + name);
    if (found == tensors.end())
      named.fail(fmt::format("tensor '{}' is listed, but not in {}", name, tensor_file), "", "");
    result.tensors.emplace(name, found->second);
  }
  return result;
}

Json parse_json(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError({path, "can't be read", "", "a golden family (JSON)", ""});
  try {
    return Json::parse(file);
  } catch (const Json::parse_error& error) {
    throw FormatError(
        {path, fmt::format("broken JSON at byte {}", error.byte), "", "a golden family (JSON)", ""});
  }
}

}  // namespace

GoldenFamily load_golden_family(const std::string& json_path) {
  const std::filesystem::path path(json_path);
  if (path.extension() != ".json")
    throw ValueError(
        {json_path, "not the name of a golden family", "", "NAME.json, with NAME.safetensors beside it", ""});
  if (std::filesystem::is_directory(path))
    throw IoError({json_path, "is a folder", "", "a golden family (JSON)", ""});
  const Json json = parse_json(json_path);
  const std::string tensor_path = std::filesystem::path(path).replace_extension(".safetensors").string();
  const Fields fields(json, json_path);
  GoldenFamily family{.file = json_path, .quantizer = fields.text("quantizer"), .cases = {}};
  const Json& cases = fields.list("cases");
  if (cases.empty()) fields.fail("no cases", "", "at least one");
  const TensorMap tensors = load_tensors(tensor_path);
  std::set<std::string> names;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    GoldenCase one = read_case(cases[i], tensors, fmt::format("{}: cases[{}]", json_path, i), tensor_path);
    if (!names.insert(one.name).second)
      fields.fail(fmt::format("two cases are called '{}'", one.name), "", "");
    family.cases.push_back(std::move(one));
  }
  return family;
}

std::vector<std::string> golden_files(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    std::set<std::string> inside;
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (entry.path().extension() == ".json") inside.insert(entry.path().string());
    if (inside.empty())
      throw ValueError(
          {path, "no golden family in this folder", "", "files NAME.json, each with NAME.safetensors", ""});
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

}  // namespace qtrain::cli
