#include "cli/model_setup.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/core/error.h"
#include "engine/io/checkpoint_file.h"
#include "engine/io/tensor_file.h"
#include "zoo/registry.h"

namespace qtrain::cli {
namespace {

constexpr std::string_view model_prefix = "model.";
constexpr std::string_view weight_prefix = "weight.";
constexpr std::string_view activation_prefix = "activation.";

bool has_option(const std::vector<quant::OptionSpec>& specs, const std::string& name) {
  return std::ranges::any_of(specs, [&](const quant::OptionSpec& s) { return s.name == name; });
}

[[noreturn]] void unknown_option(const std::string& key, const std::string& quantizers,
                                 const std::vector<quant::OptionSpec>& weight,
                                 const std::vector<quant::OptionSpec>& activation) {
  std::vector<std::string> names;
  for (const auto& spec : weight) names.insert(names.end(), {spec.name, "weight." + spec.name});
  for (const auto& spec : activation) names.insert(names.end(), {spec.name, "activation." + spec.name});
  // The right name for the wrong role is no typing error.
  const std::string bare = key.substr(key.find('.') + 1);
  std::string hint = suggest(key, names, "see `qtrain list quantizers`");
  if (has_option(weight, bare)) hint = fmt::format("did you mean 'weight.{}'?", bare);
  if (has_option(activation, bare)) hint = fmt::format("did you mean 'activation.{}'?", bare);
  throw ValueError({.where = "--set",
                    .what = fmt::format("{} has no option '{}'", quantizers, key),
                    .got = "",
                    .expected = "",
                    .hint = hint});
}

void sort_assignments(const TrainOptions& options, quant::WrapOptions& wrap) {
  const auto& weight = quant::find_quantizer(wrap.weight_quantizer).options(quant::Role::weight);
  const auto& activation = quant::find_quantizer(wrap.activation_quantizer).options(quant::Role::activation);
  const std::string both = wrap.weight_quantizer == wrap.activation_quantizer
                               ? "quantizer " + wrap.weight_quantizer
                               : wrap.weight_quantizer + " or " + wrap.activation_quantizer;
  for (const auto& [key, value] : options.set) {
    const bool for_weight = key.starts_with(weight_prefix);
    const bool for_activation = key.starts_with(activation_prefix);
    const std::string name =
        key.substr(for_weight ? weight_prefix.size() : (for_activation ? activation_prefix.size() : 0));
    const bool in_weight = !for_activation && has_option(weight, name);
    const bool in_activation = !for_weight && has_option(activation, name);
    if (!in_weight && !in_activation) unknown_option(key, both, weight, activation);
    // A key for one role outdoes the same key for both.
    if (in_weight && (for_weight || !wrap.weight_options.contains(name))) wrap.weight_options[name] = value;
    if (in_activation && (for_activation || !wrap.activation_options.contains(name)))
      wrap.activation_options[name] = value;
  }
}

bool belongs_to_quantizer(std::string_view name) {
  return name.find("weight_quantizer.") != std::string_view::npos ||
         name.find("input_quantizer.") != std::string_view::npos;
}

// The tensors of --init by the names of the network; of a checkpoint, the network's part.
struct InitialTensors {
  NamedTensors plain;
  NamedTensors of_quantizers;
};

InitialTensors read_initial(const std::string& path) {
  InitialTensors result;
  if (path.empty()) return result;
  const CheckpointFile file = CheckpointFile::open(path);
  for (const TensorEntry& entry : file.entries()) {
    std::string name = entry.name;
    if (file.verified()) {
      if (!name.starts_with(model_prefix)) continue;
      name.erase(0, model_prefix.size());
    }
    NamedTensors& part = belongs_to_quantizer(name) ? result.of_quantizers : result.plain;
    part.push_back({std::move(name), to_tensor(entry, path)});
  }
  return result;
}

void scale_tensors(Module& network, const std::vector<Assignment>& factors, bool of_quantizers) {
  const NamedTensors state = network.state_dict();
  for (const auto& [name, factor] : factors) {
    if (belongs_to_quantizer(name) != of_quantizers) continue;
    const auto found = std::ranges::find(state, name, &NamedTensor::name);
    if (found == state.end() || found->tensor.dtype() != DType::f32) {
      std::vector<std::string> names;
      for (const NamedTensor& t : state) names.push_back(t.name);
      throw ValueError({.where = "--init-scale",
                        .what = "the network has no such tensor",
                        .got = fmt::format("'{}'", name),
                        .expected = "",
                        .hint = suggest(name, names)});
    }
    const auto f = static_cast<float>(to_number(factor).value_or(1));
    float* const values = found->tensor.data<float>();
    std::transform(values, values + found->tensor.numel(), values, [f](float v) { return v * f; });
    found->tensor.bump_version();
  }
}

// Loading ends: one report for both parts, or an error where nothing fitted.
LoadReport joined(const std::string& path, LoadReport plain, const LoadReport& of_quantizers) {
  plain.loaded += of_quantizers.loaded;
  std::ranges::copy_if(of_quantizers.missing, std::back_inserter(plain.missing), belongs_to_quantizer);
  std::ranges::copy(of_quantizers.unexpected, std::back_inserter(plain.unexpected));
  if (plain.loaded == 0)
    throw ValueError({.where = path,
                      .what = "no tensor of the file belongs to this network",
                      .got = plain.unexpected.empty() ? "" : fmt::format("'{}', ...", plain.unexpected[0]),
                      .expected = plain.missing.empty() ? "" : fmt::format("'{}', ...", plain.missing[0]),
                      .hint = "is it the checkpoint of another --model?"});
  return plain;
}

}  // namespace

quant::WrapOptions wrap_options(const TrainOptions& o) {
  quant::WrapOptions wrap;
  wrap.weight_quantizer = o.w_quant.empty() ? o.quant : o.w_quant;
  wrap.activation_quantizer = o.a_quant.empty() ? o.quant : o.a_quant;
  wrap.weight_bits = static_cast<int>(o.weight_bits());
  wrap.activation_bits = static_cast<int>(o.activation_bits());
  wrap.first.treatment = quant::parse_edge_treatment(o.first_layer);
  wrap.last.treatment = quant::parse_edge_treatment(o.last_layer);
  if (o.first_w_bits) wrap.first.weight_bits = static_cast<int>(*o.first_w_bits);
  if (o.last_w_bits) wrap.last.weight_bits = static_cast<int>(*o.last_w_bits);
  sort_assignments(o, wrap);
  return wrap;
}

void load_plugins(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) quant::load_plugin(path);
}

void add_from_scratch_options(TrainOptions& options) {
  if (!options.init.empty()) return;
  load_plugins(options.plugin);
  const std::string& name = options.w_quant.empty() ? options.quant : options.w_quant;
  for (const auto& [key, value] : quant::find_quantizer(name).from_scratch) {
    const std::string full = std::string(weight_prefix) + key;
    const bool given =
        std::ranges::any_of(options.set, [&](const Assignment& a) { return a.key == key || a.key == full; });
    if (!given) options.set.push_back({full, value});
  }
  std::ranges::sort(options.set, {}, &Assignment::key);
}

BuiltModel build_model(const TrainOptions& options, std::int64_t classes) {
  load_plugins(options.plugin);
  const quant::WrapOptions wrap = wrap_options(options);
  BuiltModel built;
  built.network = zoo::make_model(options.model,
                                  {.num_classes = classes, .seed = static_cast<std::uint64_t>(options.seed)});
  const InitialTensors initial = read_initial(options.init);
  LoadReport plain;
  if (!options.init.empty()) plain = built.network->load_state_dict(initial.plain, false);
  scale_tensors(*built.network, options.init_scale, false);
  built.quantized_layers = quant::quantize_network(*built.network, wrap);
  LoadReport of_quantizers;
  if (!initial.of_quantizers.empty())
    of_quantizers = built.network->load_state_dict(initial.of_quantizers, false);
  scale_tensors(*built.network, options.init_scale, true);
  if (!options.init.empty()) built.init = joined(options.init, std::move(plain), of_quantizers);
  return built;
}

}  // namespace qtrain::cli
