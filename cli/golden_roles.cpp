#include "cli/golden_roles.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cli/field.h"
#include "cli/module_run.h"
#include "engine/core/error.h"
#include "quant/quantized_layers.h"
#include "quant/registry.h"

namespace qtrain::cli {
namespace {

using quant::LayerKind;
using quant::Role;
using Texts = std::map<std::string, std::string>;

struct Request {
  const std::string& quantizer;
  const GoldenCase& golden;
  Device device;
};

// Cases without a bit-width are of quantizers that take it from elsewhere.
int bits_of(const GoldenCase& golden) {
  return golden.bits && *golden.bits > 0 ? *golden.bits : 4;
}

// The case's option as a whole number, or `otherwise` where it isn't given.
std::int64_t number(const GoldenCase& golden, const std::string& name, std::int64_t otherwise) {
  const auto found = golden.options.find(name);
  if (found == golden.options.end()) return otherwise;
  const auto value = to_integer(found->second);
  if (!value) throw ValueError({golden.name, "option '" + name + "'", found->second, "a whole number", ""});
  return *value;
}

bool flag(const GoldenCase& golden, const std::string& name) {
  const auto found = golden.options.find(name);
  return found != golden.options.end() && found->second == "true";
}

// Of the layer that the case names, or that its tensors look like.
LayerKind layer_kind(const GoldenCase& golden, const std::string& tensor) {
  const auto named = golden.options.find("layer");
  if (named != golden.options.end())
    return named->second == "linear" ? LayerKind::linear : LayerKind::convolution;
  const auto found = golden.tensors.find(tensor);
  return found != golden.tensors.end() && found->second.rank() == 2 ? LayerKind::linear
                                                                    : LayerKind::convolution;
}

// Notes of a case that are no options: they follow from its tensors and its other options.
const std::set<std::string> facts = {"layer", "fan", "grad_factor", "qn", "qp", "signed", "iteration"};

// The weight's own shape; one sample with one pixel of an input or output.
Shape parameter_basis(const Tensor& x, Role role) {
  if (role == Role::weight || role == Role::bias) return x.shape();
  return x.rank() == 4 ? Shape{1, x.dim(1), 1, 1} : Shape{1, x.rank() > 1 ? x.dim(1) : 1};
}

// One quantizer; all options but the facts are its own. `iteration` is its number of earlier training
// forwards, where it counts them.
TensorMap run_quantizer(const Request& request, Role role) {
  const GoldenCase& golden = request.golden;
  Texts options = golden.options;
  for (const std::string& fact : facts) options.erase(fact);
  const auto x = golden.tensors.find("x");
  if (x == golden.tensors.end()) throw FormatError({golden.name, "no tensor 'x'", "", "", ""});
  const auto quantizer =
      quant::make_quantizer(request.quantizer, role, bits_of(golden), layer_kind(golden, "x"), options,
                            parameter_basis(x->second, role));
  for (const NamedTensor& t : quantizer->named_buffers())
    if (t.name == "forwards") *t.tensor.data<std::int64_t>() = number(golden, "iteration", 0);
  return run_module(*quantizer, golden.tensors, golden.training, request.device, golden.name);
}

// --- whole layers
// -----------------------------------------------------------------------------------------------

// Options of a layer case that describe the layer; the others belong to its quantizers.
const std::set<std::string> layer_options = {"layer",       "stride",       "padding",       "dilation",
                                             "groups",      "same_padding", "bitw_min",      "bita_min",
                                             "weight_only", "bits_weight",  "quantize_input"};

struct QuantizerOptions {
  Texts weight;
  Texts input;
  Texts bias;
};

// A quantizer's option stands under its own name, or under `weight_` or `act_` and its name for one role
// alone.
QuantizerOptions split_options(const Request& request) {
  const quant::QuantizerInfo& info = quant::find_quantizer(request.quantizer);
  const auto declares = [&](Role role, const std::string& name) {
    const auto& specs = info.options(role);
    return std::any_of(specs.begin(), specs.end(),
                       [&](const quant::OptionSpec& spec) { return spec.name == name; });
  };
  QuantizerOptions split;
  for (const auto& [name, value] : request.golden.options) {
    if (layer_options.contains(name)) continue;
    bool taken = false;
    const auto offer = [&, &setting = value](Role role, const std::string& own_name, Texts& options) {
      if (!declares(role, own_name)) return;
      options[own_name] = setting;
      taken = true;
    };
    if (name.starts_with("weight_")) offer(Role::weight, name.substr(7), split.weight);
    if (name.starts_with("act_")) offer(Role::activation, name.substr(4), split.input);
    offer(Role::weight, name, split.weight);
    offer(Role::activation, name, split.input);
    offer(Role::bias, name, split.bias);
    if (!taken)
      throw ValueError({request.quantizer, fmt::format("unknown option '{}' of a layer", name), "", "", ""});
  }
  return split;
}

quant::LayerQuantizers make_quantizers(const Request& request, LayerKind kind) {
  const GoldenCase& golden = request.golden;
  const QuantizerOptions options = split_options(request);
  const auto at_least = [&](const char* name) {
    return static_cast<int>(std::max<std::int64_t>(bits_of(golden), number(golden, name, 0)));
  };
  const int input_bits = flag(golden, "weight_only") ? quant::float_bits : at_least("bita_min");
  const auto weight_bits = static_cast<int>(number(golden, "bits_weight", at_least("bitw_min")));
  const auto make = [&](Role role, int bits, const Texts& own) {
    return quant::make_quantizer(request.quantizer, role, bits, kind, own);
  };
  quant::LayerQuantizers quantizers;
  quantizers.weight = make(Role::weight, weight_bits, options.weight);
  const auto quantizes_input = golden.options.find("quantize_input");
  if (quantizes_input == golden.options.end() || quantizes_input->second == "true")
    quantizers.input = make(Role::activation, input_bits, options.input);
  if (quant::find_quantizer(request.quantizer).has_role(Role::bias))
    quantizers.bias = make(Role::bias, weight_bits, options.bias);
  return quantizers;
}

std::shared_ptr<Module> make_layer(const Request& request) {
  const GoldenCase& golden = request.golden;
  const LayerKind kind = layer_kind(golden, "param.weight");
  const auto weight = golden.tensors.find("param.weight");
  if (weight == golden.tensors.end())
    throw FormatError({golden.name, "no tensor 'param.weight'", "", "", ""});
  const auto bias = golden.tensors.find("param.bias");
  const auto parameter = [](const Tensor& values) {
    Tensor own = values.clone();
    own.set_requires_grad(true);
    return own;
  };
  const Tensor w = parameter(weight->second);
  const Tensor b = bias == golden.tensors.end() ? Tensor() : parameter(bias->second);
  const quant::LayerQuantizers quantizers = make_quantizers(request, kind);
  if (kind == LayerKind::linear) return std::make_shared<quant::QuantizedLinear>(Linear(w, b), quantizers);
  const auto both = [&](const char* name, std::int64_t otherwise) {
    return square(number(golden, name, otherwise));
  };
  const ConvolutionGeometry geometry{.stride = both("stride", 1),
                                     .pad_begin = both("padding", 0),
                                     .pad_end = both("padding", 0),
                                     .dilation = both("dilation", 1),
                                     .groups = number(golden, "groups", 1)};
  return std::make_shared<quant::QuantizedConv2d>(Conv2d(w, b, geometry), quantizers,
                                                  flag(golden, "same_padding"));
}

// `alpha` of a case is the layer's `input_quantizer.alpha`; a prefix tells whose it is where both have one.
std::string module_name(const std::string& golden_name) {
  if (golden_name == "weight" || golden_name == "bias") return golden_name;
  if (golden_name.starts_with("bias_")) return "bias_quantizer." + golden_name.substr(5);
  if (golden_name.starts_with("weight_")) return "weight_quantizer." + golden_name.substr(7);
  if (golden_name.starts_with("activation_")) return "input_quantizer." + golden_name.substr(11);
  return "input_quantizer." + golden_name;
}

// `renamed` with the last part of a tensor's name changed: param.alpha to param.input_quantizer.alpha.
std::string full_name(const std::string& tensor) {
  const std::size_t dot = tensor.find('.');
  return dot == std::string::npos ? tensor : tensor.substr(0, dot + 1) + module_name(tensor.substr(dot + 1));
}

TensorMap run_layer(const Request& request) {
  TensorMap given;
  for (const auto& [name, tensor] : request.golden.tensors) given.emplace(full_name(name), tensor);
  const auto layer = make_layer(request);
  const TensorMap computed =
      run_module(*layer, given, request.golden.training, request.device, request.golden.name);
  TensorMap results;
  for (const auto& [name, tensor] : request.golden.tensors) {
    const auto found = computed.find(full_name(name));
    if (found != computed.end()) results.emplace(name, found->second);
  }
  return results;
}

// --- the table
// --------------------------------------------------------------------------------------------------

struct Runner {
  std::string role;
  TensorMap (*run)(const Request&);
};

const std::vector<Runner>& runners() {
  static const std::vector<Runner> table = {
      {"weight", [](const Request& request) { return run_quantizer(request, Role::weight); }},
      {"activation", [](const Request& request) { return run_quantizer(request, Role::activation); }},
      {"output", [](const Request& request) { return run_quantizer(request, Role::output); }},
      {"bias", [](const Request& request) { return run_quantizer(request, Role::bias); }},
      {"layer", run_layer},
  };
  return table;
}

}  // namespace

TensorMap run_golden_case(const GoldenFamily& family, const GoldenCase& golden, Device device) {
  for (const Runner& runner : runners())
    if (runner.role == golden.role) return runner.run({family.quantizer, golden, device});
  std::vector<std::string> known;
  for (const Runner& runner : runners()) known.push_back(runner.role);
  throw ValueError({"role", fmt::format("unknown role '{}'", golden.role), "",
                    fmt::format("one of {}", fmt::join(known, ", ")), suggest(golden.role, known)});
}

}  // namespace qtrain::cli
