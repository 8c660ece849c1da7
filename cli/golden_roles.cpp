#include "cli/golden_roles.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "cli/field.h"
#include "cli/module_run.h"
#include "engine/core/error.h"
#include "engine/ops/check.h"
#include "quant/quantized_layers.h"
#include "quant/quantizers/afp.h"
#include "quant/registry.h"
#include "quant/switchable_batch_norm.h"

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

double real(const GoldenCase& golden, const std::string& name, double otherwise) {
  const auto found = golden.options.find(name);
  if (found == golden.options.end()) return otherwise;
  const auto value = to_number(found->second);
  if (!value) throw ValueError({golden.name, "option '" + name + "'", found->second, "a number", ""});
  return *value;
}

// The whole numbers of a list.
std::vector<int> numbers(const GoldenCase& golden, const std::string& name) {
  const auto found = golden.options.find(name);
  std::vector<int> list;
  std::istringstream parts(found == golden.options.end() ? "" : found->second);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto value = to_integer(part);
    if (!value || *value < 0 || *value > quant::float_bits)
      throw ValueError({golden.name, "option '" + name + "'", found->second, "bit-widths", ""});
    list.push_back(static_cast<int>(*value));
  }
  return list;
}

const Tensor& tensor_of(const GoldenCase& golden, const std::string& name) {
  const auto found = golden.tensors.find(name);
  if (found == golden.tensors.end())
    throw FormatError({golden.name, fmt::format("no tensor '{}'", name), "", "", ""});
  return found->second;
}

const std::string& option_of(const GoldenCase& golden, const std::string& name) {
  const auto found = golden.options.find(name);
  if (found == golden.options.end())
    throw FormatError({golden.name, fmt::format("no option '{}'", name), "", "", ""});
  return found->second;
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
const std::set<std::string> facts = {"layer", "fan", "grad_factor", "qn", "qp", "signed", "iteration", "of"};

// `options` without those that the quantizer doesn't have in this role and that the case says are off.
Texts applicable(Texts options, const quant::QuantizerInfo& info, Role role) {
  const auto& specs = info.options(role);
  std::erase_if(options, [&](const auto& option) {
    const auto& [name, value] = option;
    return (value == "none" || value == "false") &&
           std::ranges::find(specs, name, &quant::OptionSpec::name) == specs.end();
  });
  return options;
}

// The options of the case's own quantizer.
Texts own_options(const GoldenCase& golden) {
  Texts options = golden.options;
  for (const std::string& fact : facts) options.erase(fact);
  return options;
}

// One quantizer; all options but the facts, and what is off anyway, are its own. `iteration` is its number of
// earlier training forwards, where it counts them.
TensorMap run_quantizer(const Request& request, Role role) {
  const GoldenCase& golden = request.golden;
  const Texts options = applicable(own_options(golden), quant::find_quantizer(request.quantizer), role);
  const auto x = golden.tensors.find("x");
  if (x == golden.tensors.end()) throw FormatError({golden.name, "no tensor 'x'", "", "", ""});
  const auto quantizer =
      quant::make_quantizer(request.quantizer, role, bits_of(golden), layer_kind(golden, "x"), options,
                            parameter_basis(x->second, role));
  for (const NamedTensor& t : quantizer->named_buffers())
    if (t.name == "forwards") *t.tensor.data<std::int64_t>() = number(golden, "iteration", 0);
  return run_module(*quantizer, golden.tensors, golden.training, request.device, golden.name);
}

// What the learned numbers of a quantizer for `of` start as, from its first weights x (activations need
// none).
TensorMap run_initial(const Request& request) {
  const GoldenCase& golden = request.golden;
  const auto of = golden.options.find("of");
  const Role role = of == golden.options.end() ? Role::weight : quant::parse_role(of->second);
  const auto given = golden.tensors.find("x");
  const Tensor x = given == golden.tensors.end() ? Tensor::zeros({1, 1}) : given->second;
  const auto quantizer =
      quant::make_quantizer(request.quantizer, role, bits_of(golden), layer_kind(golden, "x"),
                            own_options(golden), parameter_basis(x, role));
  quantizer->to(request.device);
  const NoGradGuard no_grad;
  quantizer->forward(x.to(request.device));
  TensorMap results;
  for (const NamedTensor& p : quantizer->named_parameters()) results["param." + p.name] = p.tensor;
  return results;
}

// What before_update() makes of gradients, or after_update() of values; a tensor has one number for each of
// several quantizers.
TensorMap run_projection(const Request& request) {
  const GoldenCase& golden = request.golden;
  Texts options = own_options(golden);
  const bool gradients = option_of(golden, "what") == "gradients";
  options.erase("what");
  if (gradients) options["limit_grad"] = "true";
  const auto quantizer = quant::make_quantizer(request.quantizer, quant::parse_role(option_of(golden, "of")),
                                               bits_of(golden), LayerKind::convolution, options);
  quantizer->to(request.device);
  const std::vector<NamedTensor> parameters = quantizer->named_parameters();
  const std::int64_t count =
      parameters.empty() ? 0 : tensor_of(golden, "param." + parameters[0].name).numel();
  const auto entry = [&](const std::string& name, std::int64_t i) {
    const Tensor& numbers = tensor_of(golden, name);
    check::sizes(numbers.numel() == count, golden.name, fmt::format("size of '{}'", name), numbers.str(),
                 fmt::format("{} numbers", count));
    return Tensor::full({1}, numbers.values()[static_cast<std::size_t>(i)]).to(request.device);
  };
  std::map<std::string, std::vector<float>> rows;
  for (std::int64_t i = 0; i < count; ++i) {
    for (const auto& [name, tensor] : parameters) {
      tensor.copy_from(entry("param." + name, i));
      if (gradients) tensor.set_grad(entry("grad." + name, i));
    }
    if (gradients)
      quantizer->before_update();
    else
      quantizer->after_update();
    for (const auto& [name, tensor] : parameters)
      rows[(gradients ? "grad_after." : "param_after.") + name].push_back(
          (gradients ? tensor.grad() : tensor).item());
  }
  TensorMap results;
  for (const auto& [name, values] : rows)
    results[name] = Tensor::from_values({static_cast<std::int64_t>(values.size())}, values);
  return results;
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
  // What the recorded code does at widths that it was not given.
  if (declares(Role::activation, "outside_list")) split.input.emplace("outside_list", "first");
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
  const Tensor& weight = tensor_of(golden, "param.weight");
  const auto bias = golden.tensors.find("param.bias");
  const auto parameter = [](const Tensor& values) {
    Tensor own = values.clone();
    own.set_requires_grad(true);
    return own;
  };
  const Tensor w = parameter(weight);
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

// --- switchable batch norm
// -----------------------------------------------------------------------------------------------

// A case's tensors have a row for each bit-width, gamma and beta only one if they are shared. This is the
// name of row k: param.gamma to param.bits8.weight, or param.weight.
std::string row_name(const std::string& tensor, const std::vector<int>& widths, std::size_t k, bool shared) {
  const std::size_t dot = tensor.find('.');
  std::string name = tensor.substr(dot + 1);
  const bool affine = name == "gamma" || name == "beta";
  if (affine) name = name == "gamma" ? "weight" : "bias";
  const std::string child = affine && shared ? "" : fmt::format("bits{}.", widths[k]);
  return tensor.substr(0, dot + 1) + child + name;
}

TensorMap run_switch_bn(const Request& request) {
  const GoldenCase& golden = request.golden;
  const std::vector<int> widths = numbers(golden, "bits_list");
  const bool shared = flag(golden, "shared_affine");
  const Tensor& x = tensor_of(golden, "x");
  check::sizes(x.rank() >= 2, golden.name, "x has no channels", x.str(), "[N, C, H, W] or [N, C]");
  const std::int64_t channels = x.dim(1);
  const BatchNorm2d plain(channels, static_cast<float>(real(golden, "eps", 1e-5)),
                          static_cast<float>(real(golden, "momentum", 0.1)));
  // At other widths, and where nothing is switched, the recorded code uses the first entry.
  quant::SwitchableBatchNorm2d norm(plain, {golden.name, widths, quant::OutsideList::first}, shared);
  const auto switches = golden.options.find("switchbn");
  norm.set_bits(switches != golden.options.end() && switches->second == "false" ? widths.front()
                                                                                : bits_of(golden));

  const auto per_width = [&](const std::string& name, const Tensor& tensor) {
    return name.find('.') != std::string::npos && tensor.rank() == 2;
  };
  TensorMap given;
  for (const auto& [name, tensor] : golden.tensors) {
    if (name.find('.') == std::string::npos) {
      given.emplace(name, tensor);
    } else if (!name.starts_with("param.") && !name.starts_with("state.")) {
      continue;
    } else if (!per_width(name, tensor)) {
      given.emplace(row_name(name, widths, 0, shared), tensor);
    } else {
      const std::vector<float> values = tensor.values();
      check::sizes(tensor.dim(0) == static_cast<std::int64_t>(widths.size()), golden.name,
                   "not one row for each bit-width", tensor.str(), fmt::format("{} rows", widths.size()));
      for (std::size_t k = 0; k < widths.size(); ++k) {
        const auto row = values.begin() + static_cast<std::ptrdiff_t>(k) * tensor.dim(1);
        given.emplace(row_name(name, widths, k, shared),
                      Tensor::from_values({tensor.dim(1)}, std::vector<float>(row, row + tensor.dim(1))));
      }
    }
  }
  given.erase("y");
  given.erase("grad_x");
  const TensorMap computed = run_module(norm, given, golden.training, request.device, golden.name);

  TensorMap results;
  for (const auto& [name, tensor] : golden.tensors) {
    if (name.starts_with("param.") || name.starts_with("state.") || name == "x" || name == "grad_y") continue;
    if (!per_width(name, tensor)) {
      const auto found =
          computed.find(name.find('.') == std::string::npos ? name : row_name(name, widths, 0, shared));
      if (found != computed.end()) results.emplace(name, found->second);
      continue;
    }
    std::vector<float> rows;
    for (std::size_t k = 0; k < widths.size(); ++k) {
      const auto found = computed.find(row_name(name, widths, k, shared));
      if (found == computed.end()) break;
      const std::vector<float> row = found->second.values();
      rows.insert(rows.end(), row.begin(), row.end());
    }
    if (static_cast<std::int64_t>(rows.size()) == tensor.numel())
      results.emplace(name, Tensor::from_values(tensor.shape(), rows));
  }
  return results;
}

// --- afp
// -----------------------------------------------------------------------------------------------

TensorMap run_levels(const Request& request) {
  float largest = 0;
  for (const float v : tensor_of(request.golden, "x").values()) largest = std::max(largest, std::abs(v));
  const std::vector<float> levels = quant::afp_levels(bits_of(request.golden), largest);
  return {{"y", Tensor::from_values({static_cast<std::int64_t>(levels.size())}, levels)}};
}

TensorMap run_scalar(const Request& request) {
  const std::vector<float> levels = tensor_of(request.golden, "param.levels").values();
  const Tensor& x = tensor_of(request.golden, "x");
  std::vector<float> y = x.values();
  for (float& v : y) v = quant::nearest_level(levels, v);
  return {{"y", Tensor::from_values(x.shape(), y)}};
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
      {"init", run_initial},
      {"project", run_projection},
      {"switch_bn", run_switch_bn},
      {"levels", run_levels},
      {"scalar", run_scalar},
  };
  return table;
}

}  // namespace

std::string why_not_run(const GoldenFamily& family, const GoldenCase& golden) {
  const auto all = quant::quantizers();
  if (std::none_of(all.begin(), all.end(), [&](const auto* info) { return info->name == family.quantizer; }))
    return fmt::format("there is no quantizer '{}'", family.quantizer);
  const std::vector<Runner>& table = runners();
  if (std::none_of(table.begin(), table.end(), [&](const Runner& r) { return r.role == golden.role; }))
    return fmt::format("cases of role '{}' can't be run by this version", golden.role);
  return "";
}

TensorMap run_golden_case(const GoldenFamily& family, const GoldenCase& golden, Device device) {
  for (const Runner& runner : runners())
    if (runner.role == golden.role) return runner.run({family.quantizer, golden, device});
  std::vector<std::string> known;
  for (const Runner& runner : runners()) known.push_back(runner.role);
  throw ValueError({"role", fmt::format("unknown role '{}'", golden.role), "",
                    fmt::format("one of {}", fmt::join(known, ", ")), suggest(golden.role, known)});
}

}  // namespace qtrain::cli
