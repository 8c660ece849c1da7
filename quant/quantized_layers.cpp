#include "quant/quantized_layers.h"

#include <algorithm>

#include "engine/ops/matmul.h"
#include "engine/ops/rearrange.h"

namespace qtrain::quant {
namespace {

std::string quantizer_note(const Quantizer* weight, const Quantizer* input) {
  return (weight != nullptr ? "; w: " + weight->describe() : "") +
         (input != nullptr ? "; x: " + input->describe() : "");
}

Tensor quantized(const Slot<Quantizer>& quantizer, const Tensor& x) {
  return quantizer ? quantizer(x) : x;
}

Tensor bias_beside(const Slot<Quantizer>& weight_quantizer, const Tensor& bias) {
  return weight_quantizer && bias.defined() ? weight_quantizer->layer_bias(bias) : bias;
}

// Total padding so that ceil(size / stride) windows fit; half of it, rounded down, goes before.
std::int64_t same_total(std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t dilation) {
  const std::int64_t windows = (size + stride - 1) / stride;
  return std::max<std::int64_t>((windows - 1) * stride + (kernel - 1) * dilation + 1 - size, 0);
}

Tensor pad_same(const Tensor& x, const Shape& weight, const ConvolutionGeometry& g) {
  const std::int64_t h = same_total(x.dim(2), weight[2], g.stride.h, g.dilation.h);
  const std::int64_t w = same_total(x.dim(3), weight[3], g.stride.w, g.dilation.w);
  return h == 0 && w == 0 ? x : pad2d(x, {h / 2, w / 2}, {h - h / 2, w - w / 2});
}

}  // namespace

QuantizedConv2d::QuantizedConv2d(const Conv2d& layer, const LayerQuantizers& quantizers, bool same_padding)
    : Conv2d(layer.weight(), layer.bias(), layer.geometry()), same_padding_(same_padding) {
  if (quantizers.weight) weight_quantizer_ = add<Quantizer>("weight_quantizer", quantizers.weight);
  if (quantizers.input) input_quantizer_ = add<Quantizer>("input_quantizer", quantizers.input);
}

Tensor QuantizedConv2d::forward(const Tensor& x) {
  ConvolutionGeometry g = geometry();
  if (same_padding_) g.pad_begin = g.pad_end = {0, 0};
  const Tensor input = quantized(input_quantizer_, same_padding_ ? pad_same(x, weight().shape(), g) : x);
  const Tensor w = quantized(weight_quantizer_, weight());
  return conv2d(input, w, bias_beside(weight_quantizer_, bias()), g);
}

std::string QuantizedConv2d::describe() const {
  return Conv2d::describe() + quantizer_note(weight_quantizer(), input_quantizer());
}

QuantizedLinear::QuantizedLinear(const Linear& layer, const LayerQuantizers& quantizers)
    : Linear(layer.weight(), layer.bias()) {
  if (quantizers.weight) weight_quantizer_ = add<Quantizer>("weight_quantizer", quantizers.weight);
  if (quantizers.input) input_quantizer_ = add<Quantizer>("input_quantizer", quantizers.input);
}

Tensor QuantizedLinear::forward(const Tensor& x) {
  const Tensor input = quantized(input_quantizer_, x);
  const Tensor w = quantized(weight_quantizer_, weight());
  return linear(input, w, bias_beside(weight_quantizer_, bias()));
}

std::string QuantizedLinear::describe() const {
  return Linear::describe() + quantizer_note(weight_quantizer(), input_quantizer());
}

}  // namespace qtrain::quant
