// What the tests over all registered quantizers run on: each quantizer in each of its roles, with every value
// of its switches and choices, one at a time.
#pragma once

#include <algorithm>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "engine/core/error.h"
#include "quant/registry.h"

namespace qtrain::quant {

struct Subject {
  std::string quantizer;
  Role role = Role::weight;
  LayerKind layer = LayerKind::convolution;
  std::map<std::string, std::string> options;

  std::shared_ptr<Quantizer> make(int bits) const {
    return make_quantizer(quantizer, role, bits, layer, options);
  }
  // nullptr where the quantizer doesn't do that bit-width.
  std::shared_ptr<Quantizer> make_if_possible(int bits) const try {
    return make(bits);
  } catch (const ValueError&) {
    return nullptr;
  }
  // 4, or what comes next for quantizers that can't do 4 bits; 0 where none is possible.
  int usual_bits() const {
    for (const int bits : {4, 2, 1, 3, 8})
      if (make_if_possible(bits) != nullptr) return bits;
    return 0;
  }
  std::shared_ptr<Quantizer> make_usual() const { return make(usual_bits()); }
  bool option_is(const std::string& name, const std::string& value) const {
    const auto found = options.find(name);
    return found != options.end() && found->second == value;
  }
  // The same, where it may be by default.
  bool setting_is(const std::string& name, const std::string& value) const {
    if (options.contains(name)) return option_is(name, value);
    const std::vector<OptionSpec>& specs = find_quantizer(quantizer).options(role);
    const auto found =
        std::find_if(specs.begin(), specs.end(), [&](const OptionSpec& spec) { return spec.name == name; });
    return found != specs.end() && found->default_value == value;
  }
  std::string name() const {
    std::string text =
        quantizer + "_" + std::string(name_of(role)) + (layer == LayerKind::linear ? "_linear" : "_conv");
    for (const auto& [key, value] : options) text.append("_").append(key).append("_").append(value);
    std::replace_if(
        text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    return text;
  }
};

inline std::ostream& operator<<(std::ostream& out, const Subject& s) {
  return out << s.name();
}

// The defaults, and each switch and choice set to each other value.
inline std::vector<Subject> subjects() {
  std::vector<Subject> all;
  for (const QuantizerInfo* info : quantizers())
    for (const Role role : info->roles)
      for (const LayerKind layer : {LayerKind::convolution, LayerKind::linear}) {
        std::vector<Subject> variants = {{info->name, role, layer, {}}};
        for (const OptionSpec& spec : info->options(role)) {
          std::vector<std::string> values = spec.choices;
          if (spec.type == OptionType::boolean) values = {"true", "false"};
          for (const std::string& value : values)
            if (value != spec.default_value)
              variants.push_back({info->name, role, layer, {{spec.name, value}}});
        }
        for (const Subject& variant : variants)
          if (variant.usual_bits() > 0) all.push_back(variant);  // some options are for one kind of layer
      }
  return all;
}

// Weights are small, activations spread over their clipping level.
inline double usual_deviation(const Subject& s) {
  return s.role == Role::weight ? 0.3 : 4;
}

inline Shape usual_shape(const Subject& s) {
  if (s.layer == LayerKind::linear) return {16, 24};
  return s.role == Role::weight ? Shape{8, 3, 3, 3} : Shape{2, 5, 6, 7};
}

}  // namespace qtrain::quant
