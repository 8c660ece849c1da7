// Makes a quantized network of any float network: every Conv2d and Linear in the tree is replaced by its
// quantized form, 1x1 shortcuts and depthwise convolutions included.
#pragma once

#include <optional>

#include "quant/registry.h"

namespace qtrain::quant {

// What happens to the first or the last layer.
enum class EdgeTreatment {
  automatic,    // the quantizer's own rule (EdgeRule)
  full,         // like every other layer
  weight_only,  // weights quantized, input not
  none,         // left float
};
EdgeTreatment parse_edge_treatment(std::string_view name);  // auto, full, weight-only, float

struct EdgeOptions {
  EdgeTreatment treatment = EdgeTreatment::automatic;
  std::optional<int> weight_bits = {};  // unset: the network's, or the rule's least if that is more
};

struct WrapOptions {
  std::string weight_quantizer = "sat";
  std::string activation_quantizer = "sat";
  std::string output_quantizer = "none";  // of convolutions
  std::string bias_quantizer = "auto";    // auto: the weights' quantizer where it has that role
  int weight_bits = 4;                    // 0: layers with weights of 0 bits return their input
  int activation_bits = 4;
  int output_bits = 4;
  std::map<std::string, std::string> weight_options = {};
  std::map<std::string, std::string> activation_options = {};
  std::map<std::string, std::string> output_options = {};
  std::map<std::string, std::string> bias_options = {};
  EdgeOptions first = {};
  EdgeOptions last = {};
  bool fuse =
      true;  // batch norms and the quantizers behind them share passes over memory; the values are the same
};

// The name of the quantizer of biases: bias_quantizer, or what its `auto` stands for.
std::string bias_quantizer_of(const WrapOptions& options);

// Returns the paths of the layers that were replaced. The network's parameters stay the same tensors;
// quantizers add theirs. Call it before making the optimizer. ValueError for an unknown quantizer, option or
// bit-width, or a network without layers to quantize; nothing is changed then.
std::vector<std::string> quantize_network(Module& network, const WrapOptions& options);

// The sum of what the network's quantizers add to the loss for the last training forward; undefined if none
// does.
Tensor take_quantization_loss(Module& network);

// Tells every quantizer that an epoch starts.
void start_epoch(Module& network, const EpochStart& start);

// Around every optimizer step: calls before_update() and after_update() of every quantizer.
void before_update(Module& network);
void after_update(Module& network);

struct ModelSize {
  std::int64_t float_bytes = 0;  // all parameters and running statistics as float32
  std::int64_t quantized_bytes =
      0;  // quantized weights at their bit-widths (each layer rounded up to a byte), the rest as float32
};
ModelSize model_size(Module& network);

}  // namespace qtrain::quant
