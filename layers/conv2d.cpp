#include "layers/conv2d.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/core/error.h"

namespace qtrain {
namespace {

void require(bool holds, std::string got, std::string expected) {
  if (!holds)
    throw ValueError({.where = "Conv2d",
                      .what = "impossible sizes",
                      .got = std::move(got),
                      .expected = std::move(expected),
                      .hint = ""});
}

const Conv2dOptions& checked(const Conv2dOptions& o) {
  require(
      std::min({o.in_channels, o.out_channels, o.kernel.h, o.kernel.w, o.stride.h, o.stride.w, o.dilation.h,
                o.dilation.w, o.groups}) >= 1 &&
          std::min(o.padding.h, o.padding.w) >= 0,
      fmt::format("{} to {} channels, kernel {}x{}, stride {}x{}, padding {}x{}, dilation {}x{}, {} groups",
                  o.in_channels, o.out_channels, o.kernel.h, o.kernel.w, o.stride.h, o.stride.w, o.padding.h,
                  o.padding.w, o.dilation.h, o.dilation.w, o.groups),
      "sizes of at least 1, padding of at least 0");
  require(o.in_channels % o.groups == 0 && o.out_channels % o.groups == 0,
          fmt::format("{} to {} channels in {} groups", o.in_channels, o.out_channels, o.groups),
          "channels divisible by groups");
  return o;
}

Tensor checked_weight(Tensor weight) {
  require(weight.defined() && weight.rank() == 4, weight.str(), "a weight of rank 4");
  return weight;
}

std::string extent(Extent e) {
  return e.h == e.w ? fmt::format("{}", e.h) : fmt::format("{}x{}", e.h, e.w);
}

}  // namespace

Conv2d::Conv2d(const Conv2dOptions& options)
    : Conv2d(make_parameter({checked(options).out_channels, options.in_channels / options.groups,
                             options.kernel.h, options.kernel.w}),
             options.bias ? make_parameter({options.out_channels}) : Tensor{},
             {.stride = options.stride,
              .pad_begin = options.padding,
              .pad_end = options.padding,
              .dilation = options.dilation,
              .groups = options.groups}) {}

Conv2d::Conv2d(Tensor weight, Tensor bias, const ConvolutionGeometry& geometry)
    : geometry_(geometry),
      weight_(add_parameter("weight", checked_weight(std::move(weight)))),
      bias_(add_parameter("bias", std::move(bias))) {}

Tensor Conv2d::forward(const Tensor& x) {
  return conv2d(x, weight_, bias_, geometry_);
}

std::string Conv2d::describe() const {
  const ConvolutionGeometry& g = geometry_;
  std::string text =
      fmt::format("{}({} -> {}, kernel {}x{}", kind(), in_channels(), out_channels(), kernel().h, kernel().w);
  if (g.stride != Extent{1, 1}) text += ", stride " + extent(g.stride);
  if (g.pad_begin != Extent{0, 0} || g.pad_end != Extent{0, 0})
    text += g.pad_begin == g.pad_end
                ? ", padding " + extent(g.pad_begin)
                : fmt::format(", padding {} to {}", extent(g.pad_begin), extent(g.pad_end));
  if (g.dilation != Extent{1, 1}) text += ", dilation " + extent(g.dilation);
  if (g.groups != 1) text += fmt::format(", {} groups", g.groups);
  if (bias_.defined()) text += ", bias";
  return text + ")";
}

}  // namespace qtrain
