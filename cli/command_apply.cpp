// qtrain apply: one quantizer on the tensors of a file, or on the weights of a network's file.
#include <fmt/format.h>

#include <iostream>

#include "cli/checkpoint.h"
#include "cli/commands.h"
#include "cli/device_setup.h"
#include "cli/model_setup.h"
#include "cli/module_run.h"
#include "engine/core/error.h"
#include "quant/registry.h"

namespace qtrain::cli {
namespace {

void check_names(const TensorMap& tensors, const std::string& file) {
  for (const auto& [name, tensor] : tensors) {
    const bool known =
        name == "x" || name == "grad_y" || name.starts_with("param.") || name.starts_with("state.");
    if (!known)
      throw FormatError({file, fmt::format("unknown tensor '{}'", name), "", "x, grad_y, param.*, state.*",
                         "--network quantizes the weights of a network's file"});
  }
  if (!tensors.contains("x")) throw FormatError({file, "no tensor 'x'", "", "x: what to quantize", ""});
}

std::shared_ptr<quant::Quantizer> quantizer_for(const ApplyOptions& options, const Tensor& x) {
  std::map<std::string, std::string> settings;
  for (const Assignment& set : options.set) settings[set.key] = set.value;
  const quant::Role role = quant::parse_role(options.role);
  // Weights and inputs of linear layers have rank 2, those of convolutions rank 4.
  const auto layer = x.rank() == 2 ? quant::LayerKind::linear : quant::LayerKind::convolution;
  return quant::make_quantizer(options.quant, role, static_cast<int>(options.bits), layer, settings,
                               parameter_basis(x, role));
}

void apply_to_tensors(const ApplyOptions& options, Device device) {
  const TensorMap tensors = load_tensors(options.input);
  check_names(tensors, options.input);
  const auto quantizer = quantizer_for(options, tensors.at("x"));
  const TensorMap results = run_module(*quantizer, tensors, options.training, device, options.input);
  save_tensors(options.output, results);
  for (const auto& [name, tensor] : results) std::cout << fmt::format("{}  {}\n", name, tensor.str());
}

// --- networks
// -----------------------------------------------------------------------------------------------

// Evaluation builds a run's network with its quantizers, which would quantize a second time.
void check_run_is_float(const Checkpoint& checkpoint) {
  const TrainOptions& run = checkpoint.options;
  const std::string& name = run.w_quant.empty() ? run.quant : run.w_quant;
  if (name != "none")
    throw ValueError({checkpoint.file.name(), "the run has quantized weights already", name,
                      "a float run, or a plain tensor file", ""});
}

// The weight of a layer, as seen from the outside: what else has two dimensions or more in a network belongs
// to quantizers.
bool is_weight(const std::string& name, const Tensor& tensor) {
  return tensor.dtype() == DType::f32 && tensor.rank() >= 2 && name.find("_quantizer.") == std::string::npos;
}

void apply_to_network(const ApplyOptions& options, Device device) {
  const CheckpointFile file = CheckpointFile::open(options.input);
  if (file.verified()) check_run_is_float(read_checkpoint(options.input));
  NamedTensors tensors;
  std::size_t quantized = 0;
  for (const TensorEntry& entry : file.entries()) {
    // The optimizer's state belongs to the weights before.
    if (file.verified() && !entry.name.starts_with("model.")) continue;
    Tensor tensor = to_tensor(entry, file.name());
    if (is_weight(entry.name, tensor)) {
      tensor =
          run_module(*quantizer_for(options, tensor), {{"x", tensor}}, options.training, device, file.name())
              .at("y");
      if (!non_finite_tensors({{entry.name, tensor}}).empty())
        throw ValueError(
            {file.name(), fmt::format("'{}' quantized is not finite", entry.name), "", "finite weights", ""});
      ++quantized;
    }
    tensors.push_back({entry.name, tensor});
  }
  if (quantized == 0)
    throw ValueError(
        {file.name(), "no weights in this file", "", "float tensors of two or more dimensions", ""});
  const HostTensors host(tensors);
  if (file.verified()) {
    save_checkpoint(options.output, host.list(), file.metadata());
  } else {
    write_safetensors(options.output, host.list(), file.metadata());
  }
  std::cout << fmt::format("{} tensors quantized, {} copied\n", quantized, tensors.size() - quantized);
}

}  // namespace

int run_apply(const ApplyOptions& options) {
  load_plugins(options.plugin);
  const Device device = choose_device(options.device);
  if (options.network && options.role != "weight")
    throw ValueError({"--network", "quantizes weights", "--role " + options.role, "--role weight", ""});
  if (options.network) {
    apply_to_network(options, device);
  } else {
    apply_to_tensors(options, device);
  }
  return 0;
}

}  // namespace qtrain::cli
