#include "engine/ops/convolution.h"

#include <fmt/format.h>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/ops/cast.h"
#include "engine/ops/check.h"

namespace qtrain {
namespace {

// dL/dx is the transposed convolution of dL/dy with w; dL/dw correlates x with dL/dy; dL/dbias sums dL/dy.
struct ConvolutionNode final : Node {
  SavedTensor x{"x"};
  SavedTensor weight{"weight"};
  Shape x_shape, weight_shape;
  ConvolutionGeometry geometry;

  std::string_view name() const override { return "conv2d"; }
  std::vector<SavedTensor*> saved() override { return {&x, &weight}; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& grad_y = grad_outputs[0];
    Backend& b = backend(grad_y.device());
    std::vector<Tensor> grads(3);
    const bool wants_bias = needs_grad(2);
    if (needs_grad(1) || wants_bias) {
      grads[1] = Tensor::empty(weight_shape, grad_y.dtype(), grad_y.device());
      if (wants_bias) grads[2] = Tensor::empty({weight_shape[0]}, grad_y.dtype(), grad_y.device());
      b.convolution_backward_weight(b.stream(), geometry, x.get(), grad_y, grads[1], grads[2]);
    }
    if (needs_grad(0)) {
      grads[0] = Tensor::empty(x_shape, grad_y.dtype(), grad_y.device());
      b.convolution_backward_data(b.stream(), geometry, weight.get(), grad_y, grads[0]);
    }
    return grads;
  }
};

std::int64_t windows(std::int64_t size, std::int64_t pad, std::int64_t kernel, std::int64_t dilation,
                     std::int64_t stride) {
  const std::int64_t span = dilation * (kernel - 1) + 1;
  return size + pad < span ? 0 : (size + pad - span) / stride + 1;
}

void check_geometry(const ConvolutionGeometry& g) {
  constexpr std::int64_t most = 1 << 20;
  const auto in_range = [](std::int64_t v, std::int64_t low) { return v >= low && v <= most; };
  check::value(in_range(g.stride.h, 1) && in_range(g.stride.w, 1), "conv2d", "stride",
               fmt::format("{}x{}", g.stride.h, g.stride.w), "at least 1");
  check::value(in_range(g.dilation.h, 1) && in_range(g.dilation.w, 1), "conv2d", "dilation",
               fmt::format("{}x{}", g.dilation.h, g.dilation.w), "at least 1");
  check::value(in_range(g.groups, 1), "conv2d", "groups", std::to_string(g.groups), "at least 1");
  check::value(in_range(g.pad_begin.h, 0) && in_range(g.pad_begin.w, 0) && in_range(g.pad_end.h, 0) &&
                   in_range(g.pad_end.w, 0),
               "conv2d", "padding",
               fmt::format("{}x{} and {}x{}", g.pad_begin.h, g.pad_begin.w, g.pad_end.h, g.pad_end.w),
               "at least 0");
}

// All of one element type.
Tensor convolve(const Tensor& x, const Tensor& weight, const Tensor& bias,
                const ConvolutionGeometry& geometry, const Shape& shape) {
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  Backend& b = backend(x.device());
  b.convolution_forward(b.stream(), geometry, x, weight, bias, y);
  return Tape::record<ConvolutionNode>("conv2d", {x, weight, bias}, y, [&](ConvolutionNode& node) {
    if (weight.requires_grad() || (bias.defined() && bias.requires_grad())) node.x.save(x);
    if (x.requires_grad()) node.weight.save(weight);
    node.x_shape = x.shape();
    node.weight_shape = weight.shape();
    node.geometry = geometry;
  });
}

}  // namespace

Shape conv2d_shape(const Shape& x, const Shape& weight, const ConvolutionGeometry& g) {
  check_geometry(g);
  check::sizes(x.rank() == 4 && weight.rank() == 4, "conv2d", "wrong number of dimensions",
               fmt::format("x {} and weight {}", x.str(), weight.str()), "4 and 4");
  const auto sizes = [&] {
    return fmt::format("x {} and weight {}, groups {}", x.str(), weight.str(), g.groups);
  };
  check::sizes(x[1] == weight[1] * g.groups, "conv2d", "input channels don't match", sizes(),
               fmt::format("x with {} channels", weight[1] * g.groups));
  check::sizes(weight[0] % g.groups == 0, "conv2d", "output channels don't divide into groups", sizes(),
               "a multiple of groups");
  const std::int64_t height = windows(x[2], g.pad_begin.h + g.pad_end.h, weight[2], g.dilation.h, g.stride.h);
  const std::int64_t width = windows(x[3], g.pad_begin.w + g.pad_end.w, weight[3], g.dilation.w, g.stride.w);
  check::sizes(weight[2] > 0 && weight[3] > 0 && height > 0 && width > 0, "conv2d",
               "the window doesn't fit into the padded input", sizes(), "a larger input or more padding");
  return {x[0], weight[0], height, width};
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const ConvolutionGeometry& geometry) {
  check::floats("conv2d", "x", x);
  check::floats("conv2d", "weight", weight);
  check::rank("conv2d", "x", x, {4});
  check::rank("conv2d", "weight", weight, {4});
  if (bias.defined()) {
    check::floats("conv2d", "bias", bias);
    check::shape("conv2d", "bias", bias, {weight.dim(0)});
  }
  check::same_device("conv2d", {x, weight, bias});
  const Shape shape = conv2d_shape(x.shape(), weight.shape(), geometry);
  check::sizes(x.numel() > 0 && weight.numel() > 0, "conv2d", "nothing to convolve",
               x.str() + " and " + weight.str(), "at least one image and one filter");
  return convolve(x, cast(weight, x.dtype()), bias.defined() ? cast(bias, x.dtype()) : bias, geometry, shape);
}

}  // namespace qtrain
