// qtrain apply: one quantizer on the tensors of a file.
#include <fmt/format.h>

#include <iostream>

#include "cli/commands.h"
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
      throw FormatError(
          {file, fmt::format("unknown tensor '{}'", name), "", "x, grad_y, param.*, state.*", ""});
  }
  if (!tensors.contains("x")) throw FormatError({file, "no tensor 'x'", "", "x: what to quantize", ""});
}

}  // namespace

int run_apply(const ApplyOptions& options) {
  load_plugins(options.plugin);
  const Device device = parse_device(options.device);
  std::map<std::string, std::string> settings;
  for (const Assignment& set : options.set) settings[set.key] = set.value;

  const TensorMap tensors = load_tensors(options.input);
  check_names(tensors, options.input);
  // Weights and inputs of linear layers have rank 2, those of convolutions rank 4.
  const auto layer = tensors.at("x").rank() == 2 ? quant::LayerKind::linear : quant::LayerKind::convolution;
  const auto quantizer = quant::make_quantizer(options.quant, quant::parse_role(options.role),
                                               static_cast<int>(options.bits), layer, settings);
  const TensorMap results = run_module(*quantizer, tensors, options.training, device, options.input);
  save_tensors(options.output, results);
  for (const auto& [name, tensor] : results) std::cout << fmt::format("{}  {}\n", name, tensor.str());
  return 0;
}

}  // namespace qtrain::cli
