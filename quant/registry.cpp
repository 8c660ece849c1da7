#include "quant/registry.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include "engine/core/error.h"
#include "engine/ops/rearrange.h"

namespace qtrain::quant {
namespace {

// A function's static, so that registrations of any file find it made. std::map: addresses stay valid.
std::map<std::string, QuantizerInfo, std::less<>>& table() {
  static std::map<std::string, QuantizerInfo, std::less<>> all;
  return all;
}

void require_bits(const std::string& where, int bits) {
  if (bits < 1 || bits > float_bits)
    throw ValueError({.where = where,
                      .what = "bit-width out of range",
                      .got = std::to_string(bits),
                      .expected = "1..32",
                      .hint = "32 means not rounded"});
}

}  // namespace

Tensor Quantizer::forward_padded(const Tensor& x, const Border& padding) {
  return forward(pad2d(x, padding.begin, padding.end));
}

void Quantizer::set_bits(int bits) {
  require_bits(kind(), bits);
  bits_ = bits;
}

std::string kind_from(std::string_view op) {
  std::string name;
  bool upper = true;
  for (const char c : op) {
    if (c != ' ' && c != '-')
      name += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    upper = c == ' ' || c == '-';
  }
  return name;
}

std::string_view name_of(Role role) {
  constexpr std::array<std::string_view, 4> names = {"weight", "activation", "output", "bias"};
  return names[static_cast<std::size_t>(role)];
}

Role parse_role(std::string_view name) {
  for (const Role role : all_roles)
    if (name == name_of(role)) return role;
  throw ValueError({.where = "role",
                    .what = "unknown role",
                    .got = fmt::format("'{}'", name),
                    .expected = "weight, activation, output or bias",
                    .hint = ""});
}

const std::vector<OptionSpec>& QuantizerInfo::options(Role role) const {
  switch (role) {
    case Role::weight:
      return weight_options;
    case Role::activation:
      return activation_options;
    case Role::output:
      return output_options;
    case Role::bias:
      break;
  }
  return bias_options;
}

bool QuantizerInfo::has_role(Role role) const {
  return std::ranges::find(roles, role) != roles.end();
}

void register_quantizer(QuantizerInfo info) {
  const std::string name = info.name;
  if (!table().emplace(name, std::move(info)).second)
    throw ValueError({.where = "quantizers",
                      .what = fmt::format("there is already a quantizer '{}'", name),
                      .got = "",
                      .expected = "another name",
                      .hint = ""});
}

std::vector<const QuantizerInfo*> quantizers() {
  std::vector<const QuantizerInfo*> all;
  for (const auto& [name, info] : table()) all.push_back(&info);
  return all;
}

const QuantizerInfo& find_quantizer(std::string_view name) {
  const auto found = table().find(name);
  if (found != table().end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, info] : table()) names.push_back(known);
  throw ValueError({.where = "quantizer",
                    .what = fmt::format("unknown quantizer '{}'", name),
                    .got = "",
                    .expected = fmt::format("one of {}", fmt::join(names, ", ")),
                    .hint = suggest(name, names)});
}

std::shared_ptr<Quantizer> make_quantizer(std::string_view name, Role role, int bits, LayerKind layer,
                                          const std::map<std::string, std::string>& options,
                                          const Shape& shape) {
  const QuantizerInfo& info = find_quantizer(name);
  if (!info.has_role(role))
    throw ValueError({.where = info.name,
                      .what = fmt::format("doesn't quantize {}",
                                          role == Role::bias ? "biases" : fmt::format("{}s", name_of(role))),
                      .got = "",
                      .expected = "",
                      .hint = "see qtrain list quantizers"});
  require_bits(info.name, bits);
  return info.make(
      {.role = role,
       .bits = bits,
       .layer = layer,
       .options = Options(fmt::format("{} ({})", info.name, name_of(role)), info.options(role), options),
       .shape = shape});
}

int nearest_bits(const QuantizerInfo& info, Role role, int wanted) {
  const auto possible = [&](int bits) {
    if (bits < 1 || bits > float_bits) return false;
    try {
      make_quantizer(info.name, role, bits, LayerKind::convolution);
      return true;
    } catch (const ValueError&) {
      return false;
    }
  };
  if (!info.has_role(role)) return 0;
  for (int distance = 0; distance < float_bits; ++distance) {
    if (possible(wanted - distance)) return wanted - distance;
    if (possible(wanted + distance)) return wanted + distance;
  }
  return 0;
}

void load_plugin(const std::string& path) {
  static std::set<std::filesystem::path> loaded;
  if (!std::filesystem::exists(path))
    throw IoError(
        {.where = "plugin", .what = "no such file", .got = path, .expected = "a shared library", .hint = ""});
  // An absolute path: a name without a slash would be searched in the system's folders.
  const std::filesystem::path file = std::filesystem::canonical(path);
  if (loaded.contains(file)) return;
  const std::size_t before = table().size();
  if (dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr)
    throw IoError({.where = "plugin",
                   .what = "can't be loaded",
                   .got = dlerror(),
                   .expected = "a shared library built for this version of qtrain",
                   .hint = ""});
  if (table().size() == before)
    throw IoError({.where = "plugin",
                   .what = "adds no quantizer",
                   .got = path,
                   .expected = "a static quant::Registration",
                   .hint = ""});
  loaded.insert(file);
}

}  // namespace qtrain::quant
