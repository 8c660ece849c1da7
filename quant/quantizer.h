// What a quantizer is: a module that maps a tensor to a quantized one of the same shape, with a gradient. Its
// learned parameters and its running statistics are ordinary module state, so they train, save and load like
// any other.
#pragma once

#include "layers/module.h"
#include "quant/options.h"

namespace qtrain::quant {

// What a quantizer is applied to.
enum class Role { weight, activation };
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
};

class Quantizer : public Module {
 public:
  using Role = quant::Role;  // Module has a private name like it
  static constexpr std::string_view interface_name = "Quantizer";

  explicit Quantizer(int bits) : bits_(bits) {}

  int bits() const { return bits_; }
  // Takes effect at the next forward. ValueError for bits outside 1..32 or that the quantizer can't do.
  virtual void set_bits(int bits);

  // The bias that goes with the weights of the last forward. Only quantizers that move a scale from the
  // weights to the bias (sat, in evaluation) change it.
  virtual Tensor layer_bias(const Tensor& bias) { return bias; }

 private:
  int bits_;
};

}  // namespace qtrain::quant
