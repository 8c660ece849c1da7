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
// What `--set KEY=VALUE` can go to: the options of one role.
struct Target {
  std::string_view prefix;  // "weight."
  const std::vector<quant::OptionSpec>* specs;
  std::map<std::string, std::string>* options;
};

bool has_option(const Target& target, const std::string& name) {
  return std::ranges::any_of(*target.specs, [&](const quant::OptionSpec& s) { return s.name == name; });
}

[[noreturn]] void unknown_option(const std::string& key, const std::string& quantizers,
                                 const std::vector<Target>& targets) {
  std::vector<std::string> names;
  for (const Target& target : targets)
    for (const auto& spec : *target.specs)
      names.insert(names.end(), {spec.name, fmt::format("{}{}", target.prefix, spec.name)});
  // The right name for the wrong role is no typing error.
  const std::string bare = key.substr(key.find('.') + 1);
  std::string hint = suggest(key, names, "see `qtrain list quantizers`");
  for (const Target& target : targets)
    if (has_option(target, bare)) hint = fmt::format("did you mean '{}{}'?", target.prefix, bare);
  throw ValueError({.where = "--set",
                    .what = fmt::format("{} has no option '{}'", quantizers, key),
                    .got = "",
                    .expected = "",
                    .hint = hint});
}

// Names of the quantizers in use: "quantizer sat", "dorefa or pact".
std::string quantizer_names(const quant::WrapOptions& wrap) {
  std::vector<std::string> names;
  for (const std::string& name : {wrap.weight_quantizer, wrap.activation_quantizer, wrap.output_quantizer,
                                  quant::bias_quantizer_of(wrap)})
    if (name != "none" && std::ranges::find(names, name) == names.end()) names.push_back(name);
  if (names.empty()) names = {"none"};
  return names.size() == 1 ? "quantizer " + names[0] : fmt::format("{}", fmt::join(names, " or "));
}

void sort_assignments(const TrainOptions& options, quant::WrapOptions& wrap) {
  using quant::Role;
  const auto specs = [](const std::string& name, Role role) {
    return &quant::find_quantizer(name).options(role);
  };
  const std::vector<Target> targets = {
      {"weight.", specs(wrap.weight_quantizer, Role::weight), &wrap.weight_options},
      {"activation.", specs(wrap.activation_quantizer, Role::activation), &wrap.activation_options},
      {"output.", specs(wrap.output_quantizer, Role::output), &wrap.output_options},
      {"bias.", specs(quant::bias_quantizer_of(wrap), Role::bias), &wrap.bias_options},
  };
  for (const auto& [key, value] : options.set) {
    const auto own =
        std::ranges::find_if(targets, [&, &k = key](const Target& t) { return k.starts_with(t.prefix); });
    bool taken = false;
    for (auto target = targets.begin(); target != targets.end(); ++target) {
      if (own != targets.end() && own != target) continue;
      const std::string name = own == targets.end() ? key : key.substr(own->prefix.size());
      if (!has_option(*target, name)) continue;
      // A key for one role outdoes the same key for all.
      if (own != targets.end() || !target->options->contains(name)) (*target->options)[name] = value;
      taken = true;
    }
    if (!taken) unknown_option(key, quantizer_names(wrap), targets);
  }
}

// The quantizer named for one role; else the common one, where it has that role.
std::string quantizer_of(const std::string& own, const std::string& common, quant::Role role) {
  if (!own.empty()) return own;
  return quant::find_quantizer(common).has_role(role) ? common : "none";
}

bool belongs_to_quantizer(std::string_view name) {
  return name.find("_quantizer.") != std::string_view::npos;
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
  wrap.weight_quantizer = quantizer_of(o.w_quant, o.quant, quant::Role::weight);
  wrap.activation_quantizer = quantizer_of(o.a_quant, o.quant, quant::Role::activation);
  wrap.output_quantizer = o.o_quant;
  wrap.bias_quantizer = o.b_quant;
  wrap.weight_bits = static_cast<int>(o.weight_bits());
  wrap.output_bits = static_cast<int>(o.output_bits());
  wrap.activation_bits = static_cast<int>(o.activation_bits());
  wrap.first.treatment = quant::parse_edge_treatment(o.first_layer);
  wrap.last.treatment = quant::parse_edge_treatment(o.last_layer);
  if (o.first_w_bits) wrap.first.weight_bits = static_cast<int>(*o.first_w_bits);
  if (o.last_w_bits) wrap.last.weight_bits = static_cast<int>(*o.last_w_bits);
  wrap.fuse = o.fuse;
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
  for (const auto& option : quant::find_quantizer(name).from_scratch) {
    const std::string full = "weight." + option.first;
    const bool given = std::ranges::any_of(
        options.set, [&](const Assignment& a) { return a.key == option.first || a.key == full; });
    if (!given) options.set.push_back({full, option.second});
  }
  std::ranges::sort(options.set, {}, &Assignment::key);
}

BuiltModel build_model(const TrainOptions& options, std::int64_t classes) {
  load_plugins(options.plugin);
  const quant::WrapOptions wrap = wrap_options(options);
  BuiltModel built;
  built.network = zoo::make_model(
      options.model,
      {.num_classes = classes, .relu = options.relu, .seed = static_cast<std::uint64_t>(options.seed)});
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
