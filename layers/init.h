// Initial values. Every function draws from streams of its own, made of (seed, parameter index, block of
// elements), in the order of PyTorch's memory (N, C, H, W): values depend neither on devices or threads nor
// on other parameters.
#pragma once

#include "layers/module.h"

namespace qtrain {

// Which stream of random numbers initializes a tensor.
struct InitStream {
  std::uint64_t seed = 0;
  std::uint64_t parameter = 0;  // the tensor's number within its network
};

// The connections of a weight [out, in/groups, ...], counted as PyTorch does: fan in = in/groups * kh * kw,
// fan out = out * kh * kw (groups don't count).
struct Fans {
  std::int64_t in = 0;
  std::int64_t out = 0;
};
Fans fans_of(const Tensor& weight);  // ShapeError for rank < 2

void init_constant(const Tensor& t, float value);
void init_normal(const Tensor& t, InitStream stream, double mean, double deviation);
void init_uniform(const Tensor& t, InitStream stream, double low, double high);
// N(0, sqrt(2 / fan out)): He et al. 2015 for ReLU networks; torchvision's ResNets.
void init_kaiming_normal(const Tensor& weight, InitStream stream);
// U(-b, b) with b = 1/sqrt(fan in), PyTorch's default of convolutions and linear layers (its "kaiming uniform
// with a = sqrt(5)": b = sqrt(6 / ((1 + a^2) * fan in))). Biases get the same bound from their weight's fan
// in.
void init_kaiming_uniform(const Tensor& weight, InitStream stream);
void init_default_bias(const Tensor& bias, const Tensor& weight, InitStream stream);

// How convolution weights start: torchvision's ResNets, or any PyTorch layer left alone.
enum class ConvolutionInit { kaiming_normal, kaiming_uniform };

// Gives a whole tree new values: convolutions as chosen with PyTorch's default biases, linear layers
// PyTorch's default, batch norm 1 and 0 with running statistics 0 and 1, dropouts their streams. Other
// modules keep theirs.
void reset_parameters(Module& tree, std::uint64_t seed,
                      ConvolutionInit rule = ConvolutionInit::kaiming_normal);

}  // namespace qtrain
