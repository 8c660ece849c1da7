#include "quant/quantized_layers.h"

#include <algorithm>

#include "engine/ops/cast.h"
#include "engine/ops/matmul.h"
#include "engine/ops/rearrange.h"

namespace qtrain::quant {
namespace {

std::string quantizer_note(const Quantizer* weight, const Quantizer* input) {
  return (weight != nullptr ? "; w: " + weight->describe() : "") +
         (input != nullptr ? "; x: " + input->describe() : "");
}

// `border`: none, or a Border.
template <class... Border>
Tensor quantized(const Slot<Quantizer>& quantizer, const Tensor& x, const Border&... border) {
  if (x.dtype() == DType::f32 || quantizer->takes_bf16()) return quantizer(x, border...);
  return cast(quantizer(cast(x, DType::f32), border...), x.dtype());
}

Tensor quantized_or_same(const Slot<Quantizer>& quantizer, const Tensor& x) {
  return quantizer ? quantized(quantizer, x) : x;
}

// The bias beside the weights that were quantized last.
Tensor bias_beside(const Slot<Quantizer>& weight_quantizer, const Slot<Quantizer>& bias_quantizer,
                   const Tensor& weight, const Tensor& bias) {
  if (bias_quantizer) bias_quantizer->follow_weight(weight);
  const Tensor own = quantized_or_same(bias_quantizer, bias);
  return weight_quantizer && own.defined() ? weight_quantizer->layer_bias(own) : own;
}

// Total padding so that ceil(size / stride) windows fit; half of it, rounded down, goes before.
std::int64_t same_total(std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t dilation) {
  const std::int64_t windows = (size + stride - 1) / stride;
  return std::max<std::int64_t>((windows - 1) * stride + (kernel - 1) * dilation + 1 - size, 0);
}

Border same_border(const Shape& x, const Shape& weight, const ConvolutionGeometry& g) {
  const std::int64_t h = same_total(x[2], weight[2], g.stride.h, g.dilation.h);
  const std::int64_t w = same_total(x[3], weight[3], g.stride.w, g.dilation.w);
  return {.begin = {h / 2, w / 2}, .end = {h - h / 2, w - w / 2}};
}

Tensor padded(const Tensor& x, const Border& border) {
  return border.none() ? x : pad2d(x, border.begin, border.end);
}

}  // namespace

QuantizedConv2d::QuantizedConv2d(const Conv2d& layer, const LayerQuantizers& quantizers, bool same_padding)
    : Conv2d(layer.weight(), layer.bias(), layer.geometry()), same_padding_(same_padding) {
  if (quantizers.weight) weight_quantizer_ = add<Quantizer>("weight_quantizer", quantizers.weight);
  if (quantizers.input) input_quantizer_ = add<Quantizer>("input_quantizer", quantizers.input);
  if (quantizers.bias && bias().defined())
    bias_quantizer_ = add<Quantizer>("bias_quantizer", quantizers.bias);
  if (quantizers.output) output_quantizer_ = add<Quantizer>("output_quantizer", quantizers.output);
}

Tensor QuantizedConv2d::forward(const Tensor& x) {
  ConvolutionGeometry g = geometry();
  const Tensor w = quantized_or_same(weight_quantizer_, weight());
  const Tensor b = bias_beside(weight_quantizer_, bias_quantizer_, weight(), bias());
  Border ahead;  // what is added before the input is quantized
  if (same_padding_ || (input_quantizer_ && input_quantizer_->pads_first())) {
    ahead = same_padding_ ? same_border(x.shape(), weight().shape(), g) : Border{g.pad_begin, g.pad_end};
    g.pad_begin = g.pad_end = {0, 0};
  }
  const Tensor input = input_quantizer_ ? quantized(input_quantizer_, x, ahead) : padded(x, ahead);
  return quantized_or_same(output_quantizer_, conv2d(input, w, b, g));
}

std::string QuantizedConv2d::describe() const {
  return Conv2d::describe() + quantizer_note(weight_quantizer(), input_quantizer());
}

QuantizedLinear::QuantizedLinear(const Linear& layer, const LayerQuantizers& quantizers)
    : Linear(layer.weight(), layer.bias()) {
  if (quantizers.weight) weight_quantizer_ = add<Quantizer>("weight_quantizer", quantizers.weight);
  if (quantizers.input) input_quantizer_ = add<Quantizer>("input_quantizer", quantizers.input);
  if (quantizers.bias && bias().defined())
    bias_quantizer_ = add<Quantizer>("bias_quantizer", quantizers.bias);
}

Tensor QuantizedLinear::forward(const Tensor& x) {
  const Tensor w = quantized_or_same(weight_quantizer_, weight());
  const Tensor b = bias_beside(weight_quantizer_, bias_quantizer_, weight(), bias());
  return linear(quantized_or_same(input_quantizer_, x), w, b);
}

std::string QuantizedLinear::describe() const {
  return Linear::describe() + quantizer_note(weight_quantizer(), input_quantizer());
}

}  // namespace qtrain::quant
