#include "quant/wrap.h"

#include <algorithm>

#include "engine/core/error.h"
#include "engine/ops/arithmetic.h"
#include "layers/normalization.h"
#include "quant/quantized_layers.h"

namespace qtrain::quant {
namespace {

struct Found {
  std::string path;
  Module* layer;
};

std::vector<Found> layers_to_quantize(Module& network) {
  std::vector<Found> found;
  network.visit([&](const std::string& path, Module& module) {
    const bool quantizable =
        dynamic_cast<Conv2d*>(&module) != nullptr || dynamic_cast<Linear*>(&module) != nullptr;
    if (quantizable && dynamic_cast<QuantizedLayer*>(&module) == nullptr && !path.empty())
      found.push_back({path, &module});
  });
  return found;
}

// How one layer is quantized.
struct Plan {
  bool leave_float = false;
  bool quantize_weights = true;
  bool quantize_input = true;
  int weight_bits = 0;
};

Plan plan_for(const WrapOptions& options, const EdgeOptions* edge, const EdgeRule& rule) {
  Plan plan{.weight_bits = options.weight_bits};
  if (edge == nullptr) return plan;
  switch (edge->treatment) {
    case EdgeTreatment::automatic:
      // Asking for a width is asking for the layer to be quantized.
      plan.quantize_weights = rule.quantize || edge->weight_bits.has_value();
      plan.quantize_input = rule.quantize_input;
      plan.leave_float = !plan.quantize_weights && !plan.quantize_input;
      plan.weight_bits = std::max(plan.weight_bits, rule.least_weight_bits);
      break;
    case EdgeTreatment::weight_only:
      plan.quantize_input = false;
      break;
    case EdgeTreatment::none:
      plan.leave_float = true;
      break;
    case EdgeTreatment::full:
      break;
  }
  if (edge->weight_bits) plan.weight_bits = *edge->weight_bits;
  return plan;
}

bool quantizes_something(const Plan& plan, const WrapOptions& options) {
  return plan.weight_bits == 0 || options.output_quantizer != "none" ||
         (plan.quantize_weights &&
          (options.weight_quantizer != "none" || bias_quantizer_of(options) != "none")) ||
         (plan.quantize_input && options.activation_quantizer != "none");
}

std::shared_ptr<Module> quantized_form(Module& layer, const WrapOptions& options, const Plan& plan) {
  auto* const conv = dynamic_cast<Conv2d*>(&layer);
  const LayerKind kind = conv != nullptr ? LayerKind::convolution : LayerKind::linear;
  if (plan.weight_bits == 0) return std::make_shared<SkippedLayer>();
  const auto channels = [&](std::int64_t count) {
    return conv != nullptr ? Shape{1, count, 1, 1} : Shape{1, count};
  };
  auto* const linear = dynamic_cast<Linear*>(&layer);
  const Tensor& weight = conv != nullptr ? conv->weight() : linear->weight();
  const Tensor& bias = conv != nullptr ? conv->bias() : linear->bias();
  const std::int64_t inputs = conv != nullptr ? conv->in_channels() : linear->in_features();
  const std::string bias_quantizer = bias_quantizer_of(options);
  LayerQuantizers quantizers;
  if (options.weight_quantizer != "none" && plan.quantize_weights)
    quantizers.weight = make_quantizer(options.weight_quantizer, Role::weight, plan.weight_bits, kind,
                                       options.weight_options, weight.shape());
  if (bias_quantizer != "none" && bias.defined() && plan.quantize_weights)
    quantizers.bias = make_quantizer(bias_quantizer, Role::bias, plan.weight_bits, kind, options.bias_options,
                                     bias.shape());
  if (options.activation_quantizer != "none" && plan.quantize_input)
    quantizers.input = make_quantizer(options.activation_quantizer, Role::activation, options.activation_bits,
                                      kind, options.activation_options, channels(inputs));
  if (options.output_quantizer != "none" && conv != nullptr)
    quantizers.output = make_quantizer(options.output_quantizer, Role::output, options.output_bits, kind,
                                       options.output_options, channels(weight.dim(0)));
  if (conv != nullptr) return std::make_shared<QuantizedConv2d>(*conv, quantizers);
  return std::make_shared<QuantizedLinear>(*linear, quantizers);
}

void visit_quantizers(Module& network, const std::function<void(Quantizer&)>& visitor) {
  network.visit([&](const std::string&, Module& module) {
    if (auto* const quantizer = dynamic_cast<Quantizer*>(&module)) visitor(*quantizer);
  });
}

}  // namespace

std::string bias_quantizer_of(const WrapOptions& options) {
  if (options.bias_quantizer != "auto") return options.bias_quantizer;
  return find_quantizer(options.weight_quantizer).has_role(Role::bias) ? options.weight_quantizer : "none";
}

EdgeTreatment parse_edge_treatment(std::string_view name) {
  if (name == "auto") return EdgeTreatment::automatic;
  if (name == "full") return EdgeTreatment::full;
  if (name == "weight-only") return EdgeTreatment::weight_only;
  if (name == "float") return EdgeTreatment::none;
  throw ValueError({.where = "quantize",
                    .what = "unknown treatment of a first or last layer",
                    .got = std::string(name),
                    .expected = "auto, full, weight-only or float",
                    .hint = ""});
}

std::vector<std::string> quantize_network(Module& network, const WrapOptions& options) {
  if (options.weight_quantizer == "none" && options.activation_quantizer == "none" &&
      options.output_quantizer == "none" && bias_quantizer_of(options) == "none")
    return {};
  const std::vector<Found> layers = layers_to_quantize(network);
  if (layers.empty())
    throw ValueError({.where = "quantize",
                      .what = "the network has no convolution or linear layer",
                      .got = network.kind(),
                      .expected = "",
                      .hint = ""});
  const QuantizerInfo& weight_info = find_quantizer(options.weight_quantizer);
  const QuantizerInfo& input_info = find_quantizer(options.activation_quantizer);
  const auto merged = [&](const EdgeRule& weight, const EdgeRule& input) {
    return EdgeRule{.quantize = weight.quantize,
                    .quantize_input = input.quantize && input.quantize_input,
                    .least_weight_bits = weight.least_weight_bits};
  };
  const EdgeRule first_rule = merged(weight_info.first_layer, input_info.first_layer);
  const EdgeRule last_rule = merged(weight_info.last_layer, input_info.last_layer);

  std::vector<std::pair<std::string, std::shared_ptr<Module>>> replacements;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const bool first = i == 0;
    const bool last = i + 1 == layers.size() && !first;
    const Plan plan = plan_for(options, first ? &options.first : (last ? &options.last : nullptr),
                               first ? first_rule : last_rule);
    if (!plan.leave_float && quantizes_something(plan, options))
      replacements.emplace_back(layers[i].path, quantized_form(*layers[i].layer, options, plan));
  }
  std::vector<std::string> paths;
  for (auto& [path, module] : replacements) {
    network.replace_child(path, std::move(module));
    paths.push_back(path);
  }
  network.visit([&](const std::string&, Module& module) {
    if (auto* const norm = dynamic_cast<BatchNorm2d*>(&module)) norm->set_fusion(options.fuse);
  });
  return paths;
}

Tensor take_quantization_loss(Module& network) {
  Tensor total;
  visit_quantizers(network, [&](Quantizer& quantizer) {
    const Tensor loss = quantizer.take_loss();
    if (loss.defined()) total = total.defined() ? qtrain::add(total, loss) : loss;
  });
  return total;
}

void start_epoch(Module& network, const EpochStart& start) {
  visit_quantizers(network, [&](Quantizer& quantizer) { quantizer.start_epoch(start); });
}

void before_update(Module& network) {
  visit_quantizers(network, [](Quantizer& quantizer) { quantizer.before_update(); });
}

void after_update(Module& network) {
  visit_quantizers(network, [](Quantizer& quantizer) { quantizer.after_update(); });
}

ModelSize model_size(Module& network) {
  ModelSize size;
  for (const NamedTensor& t : network.state_dict())
    if (t.tensor.dtype() == DType::f32) size.float_bytes += t.tensor.numel() * 4;
  size.quantized_bytes = size.float_bytes;
  network.visit([&](const std::string&, Module& module) {
    const auto* const layer = dynamic_cast<QuantizedLayer*>(&module);
    if (layer == nullptr || layer->weight_quantizer() == nullptr ||
        layer->weight_quantizer()->bits() >= float_bits)
      return;
    const auto* const conv = dynamic_cast<Conv2d*>(&module);
    const std::int64_t weights =
        (conv != nullptr ? conv->weight() : dynamic_cast<Linear&>(module).weight()).numel();
    size.quantized_bytes -= weights * 4 - (weights * layer->weight_quantizer()->bits() + 7) / 8;
  });
  return size;
}

}  // namespace qtrain::quant
