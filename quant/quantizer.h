// What a quantizer is: a module that maps a tensor to a quantized one of the same shape, with a gradient. Its
// learned parameters and its running statistics are ordinary module state, so they train, save and load like
// any other.
#pragma once

#include <array>

#include "engine/backend/geometry.h"
#include "layers/module.h"
#include "quant/options.h"

namespace qtrain::quant {

// What a quantizer is applied to: a layer's weights, its input, its output after the bias, or its bias.
enum class Role { weight, activation, output, bias };
inline constexpr std::array<Role, 4> all_roles = {Role::weight, Role::activation, Role::output, Role::bias};
std::string_view name_of(Role role);
Role parse_role(std::string_view name);  // ValueError for an unknown name

enum class LayerKind { convolution, linear };

// At least this many bits, a quantizer doesn't round.
inline constexpr int float_bits = 32;

// Everything that a quantizer is made from.
struct QuantizerSpec {
  Role role = Role::weight;
  int bits = 4;
  LayerKind layer = LayerKind::convolution;  // the kind of layer it serves
  Options options;
  // The weight's or the bias's own shape; for inputs and outputs one sample with one pixel: [1, C, 1, 1], of
  // linear layers [1, C]. All ones where it isn't known: parameters then have one group.
  Shape shape{1, 1, 1, 1};
};

// Where training stands when an epoch starts.
struct EpochStart {
  std::int64_t epoch = 0;       // 0 is the first
  std::int64_t milestones = 0;  // of a multistep schedule, passed so far
};

// A kind() from the name that an op has in messages: "lq-nets weight" to "LqNetsWeight".
std::string kind_from(std::string_view op);

class Quantizer : public Module {
 public:
  using Role = quant::Role;  // Module has a private name like it
  static constexpr std::string_view interface_name = "Quantizer";

  explicit Quantizer(int bits) : bits_(bits) {}

  using Module::forward;
  // forward() of x with zeros around its images.
  Tensor forward(const Tensor& x, const Border& padding) {
    return padding.none() ? forward(x) : forward_padded(x, padding);
  }

  int bits() const { return bits_; }
  // Takes effect at the next forward. ValueError for bits outside 1..32 or that the quantizer can't do. The
  // width is a setting, so steps that were recorded with it are found again. Who does more here than read it,
  // such as start statistics anew, calls note_change().
  virtual void set_bits(int bits);
  void add_settings(std::vector<std::int64_t>& to) const override { to.push_back(bits_); }

  // The bias that goes with the weights of the last forward. Only quantizers that move a scale from the
  // weights to the bias (sat, in evaluation) change it.
  virtual Tensor layer_bias(const Tensor& bias) { return bias; }

  // The weights of the layer, told to the quantizer of its bias before every forward. They stay the layer's.
  virtual void follow_weight(const Tensor& /*weight*/) {}

  // What the quantizer adds to the task's loss for its last training forward, a scalar; undefined if nothing.
  // Hands it over: the next call finds nothing.
  virtual Tensor take_loss() { return {}; }

  // Called before the first batch of every epoch, and after a resume in the middle of one. Who changes a
  // number here that forward() uses calls note_change().
  virtual void start_epoch(const EpochStart&) {}

  // Called between the backward pass and the optimizer's step: limits the gradients of learned numbers, where
  // the method says so.
  virtual void before_update() {}
  // Called after the optimizer's step: brings learned numbers back to where they have a gradient.
  virtual void after_update() {}

  // True where forward() takes bf16 and gives bf16. Other quantizers get their input as f32, and the layer
  // rounds what they give. Weights and biases are f32 for all.
  virtual bool takes_bf16() const { return false; }

  // True where zero is no fixed point, or where the padded zeros count in its statistics: the layer then adds
  // its zero padding before the input is quantized instead of after.
  virtual bool pads_first() const { return false; }

 protected:
  // Pads, then quantizes. Quantizers that can do both in one pass (fake_quantize_padded) override it.
  virtual Tensor forward_padded(const Tensor& x, const Border& padding);

 private:
  int bits_;
};

}  // namespace qtrain::quant
