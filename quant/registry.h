// The quantizers that can be made by name. One source file a quantizer: it ends with
//
//   const Registration registration{{.name = "sat", ...}};
//
// and nothing else in the project needs to know of it.
#pragma once

#include <functional>

#include "quant/quantizer.h"

namespace qtrain::quant {

// How the first and the last layer of a network differ from the others unless the user says otherwise.
struct EdgeRule {
  bool quantize = true;  // false: this quantizer leaves the layer alone
  bool quantize_input = true;
  int least_weight_bits = 1;
};
inline constexpr EdgeRule float_edge = {.quantize = false, .quantize_input = false};

struct QuantizerInfo {
  std::string name;
  std::string summary;  // one line
  std::string source;   // paper and reference code
  std::vector<OptionSpec> weight_options;
  std::vector<OptionSpec> activation_options;
  std::function<std::shared_ptr<Quantizer>(const QuantizerSpec&)> make;
  std::vector<Role> roles = {Role::weight, Role::activation};
  EdgeRule first_layer;
  EdgeRule last_layer;
  std::vector<OptionSpec> output_options = {};
  std::vector<OptionSpec> bias_options = {};
  // Weight options that training from random weights needs, where the defaults (the paper's) suppose
  // pretrained ones.
  std::map<std::string, std::string> from_scratch = {};
  // Tensors of the input's size that a forward with its backward has in memory at once, in any role, beyond
  // input, output and the two gradients.
  int full_size_temporaries = 0;

  const std::vector<OptionSpec>& options(Role role) const;
  bool has_role(Role role) const;
};

// Adds a quantizer. ValueError for a name that is taken.
void register_quantizer(QuantizerInfo info);

// All quantizers, by name.
std::vector<const QuantizerInfo*> quantizers();
// ValueError with the nearest name if there is none.
const QuantizerInfo& find_quantizer(std::string_view name);

// A quantizer of the registry. ValueError for an unknown name or option, a role that it doesn't have, or bits
// outside 1..32.
std::shared_ptr<Quantizer> make_quantizer(std::string_view name, Role role, int bits, LayerKind layer,
                                          const std::map<std::string, std::string>& options = {},
                                          const Shape& shape = {1, 1, 1, 1});

// The bit-width nearest to `wanted` that the quantizer does with default options, the smaller of two; 0 if it
// has no such role.
int nearest_bits(const QuantizerInfo& info, Role role, int wanted);

// Loads a shared library whose static Registration objects add quantizers. It stays loaded; loading it
// again does nothing. IoError if it can't be
// loaded or adds nothing.
void load_plugin(const std::string& path);

struct Registration {
  explicit Registration(QuantizerInfo info) { register_quantizer(std::move(info)); }
};

}  // namespace qtrain::quant
