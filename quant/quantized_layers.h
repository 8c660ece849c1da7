// Convolution and linear layers whose weights and input pass through quantizers:
//   y = output_quantizer(conv(input_quantizer(x), weight_quantizer(w)) + bias_quantizer(bias))
// They take the place of an existing layer and keep its parameters. The quantizers are children with these
// names, so their parameters are `<layer>.weight_quantizer.<p>` and so on. Each may be absent.
#pragma once

#include "layers/conv2d.h"
#include "layers/linear.h"
#include "quant/quantizer.h"

namespace qtrain::quant {

// What every quantized layer can tell about itself.
class QuantizedLayer {
 public:
  virtual ~QuantizedLayer() = default;
  virtual Quantizer* weight_quantizer() const = 0;  // nullptr where weights stay float
  virtual Quantizer* input_quantizer() const = 0;   // nullptr where the input stays float
};

// Each may be nullptr; of a layer without bias, `bias` is left out. Linear layers have no output quantizer.
struct LayerQuantizers {
  std::shared_ptr<Quantizer> weight;
  std::shared_ptr<Quantizer> input;
  std::shared_ptr<Quantizer> bias = nullptr;
  std::shared_ptr<Quantizer> output = nullptr;
};

class QuantizedConv2d final : public Conv2d, public QuantizedLayer {
 public:
  // `same_padding`: TensorFlow's rule instead of the geometry's padding: the output has ceil(input / stride)
  // rows, the smaller half of the padding comes first, and zeros are added before the input is quantized.
  QuantizedConv2d(const Conv2d& layer, const LayerQuantizers& quantizers, bool same_padding = false);
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "QuantizedConv2d"; }
  std::string describe() const override;
  Quantizer* weight_quantizer() const override { return weight_quantizer_ ? &*weight_quantizer_ : nullptr; }
  Quantizer* input_quantizer() const override { return input_quantizer_ ? &*input_quantizer_ : nullptr; }

 private:
  bool same_padding_;
  Slot<Quantizer> weight_quantizer_;
  Slot<Quantizer> input_quantizer_;
  Slot<Quantizer> bias_quantizer_;
  Slot<Quantizer> output_quantizer_;
};

class QuantizedLinear final : public Linear, public QuantizedLayer {
 public:
  QuantizedLinear(const Linear& layer, const LayerQuantizers& quantizers);
  Tensor forward(const Tensor& x) override;
  std::string kind() const override { return "QuantizedLinear"; }
  std::string describe() const override;
  Quantizer* weight_quantizer() const override { return weight_quantizer_ ? &*weight_quantizer_ : nullptr; }
  Quantizer* input_quantizer() const override { return input_quantizer_ ? &*input_quantizer_ : nullptr; }

 private:
  Slot<Quantizer> weight_quantizer_;
  Slot<Quantizer> input_quantizer_;
  Slot<Quantizer> bias_quantizer_;
};

// A layer that returns its input: what 0 weight bits mean.
class SkippedLayer final : public Module {
 public:
  Tensor forward(const Tensor& x) override { return x; }
  std::string kind() const override { return "SkippedLayer"; }
};

}  // namespace qtrain::quant
