#include "layers/activation.h"

#include <fmt/format.h>

#include "engine/core/error.h"
#include "engine/ops/activation.h"

namespace qtrain {

Tensor ReLU::forward(const Tensor& x) {
  return relu(x);
}
Tensor ReLU6::forward(const Tensor& x) {
  return relu6(x);
}
Tensor Sigmoid::forward(const Tensor& x) {
  return sigmoid(x);
}
Tensor Tanh::forward(const Tensor& x) {
  return qtrain::tanh(x);
}
Tensor SiLU::forward(const Tensor& x) {
  return silu(x);
}
Tensor Hardswish::forward(const Tensor& x) {
  return hard_swish(x);
}

Tensor LeakyReLU::forward(const Tensor& x) {
  return leaky_relu(x, negative_slope_);
}
std::string LeakyReLU::describe() const {
  return fmt::format("{}(slope {})", kind(), negative_slope_);
}

Hardtanh::Hardtanh(float low, float high) : low_(low), high_(high) {
  if (!(low < high))
    throw ValueError({.where = "Hardtanh",
                      .what = "an empty range",
                      .got = fmt::format("{} to {}", low, high),
                      .expected = "low < high",
                      .hint = ""});
}
Tensor Hardtanh::forward(const Tensor& x) {
  return clamp(x, low_, high_);
}
std::string Hardtanh::describe() const {
  return fmt::format("{}({} to {})", kind(), low_, high_);
}

}  // namespace qtrain
