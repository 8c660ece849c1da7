#include "layers/linear.h"

#include <fmt/format.h>

#include "engine/core/error.h"
#include "engine/ops/matmul.h"

namespace qtrain {
namespace {

std::int64_t checked(std::int64_t in_features, std::int64_t out_features) {
  if (in_features < 1 || out_features < 1)
    throw ValueError({.where = "Linear",
                      .what = "impossible sizes",
                      .got = fmt::format("{} to {} features", in_features, out_features),
                      .expected = "at least 1",
                      .hint = ""});
  return out_features;
}

Tensor checked_weight(Tensor weight) {
  if (!weight.defined() || weight.rank() != 2)
    throw ValueError({.where = "Linear",
                      .what = "not a weight",
                      .got = weight.str(),
                      .expected = "a tensor of rank 2",
                      .hint = ""});
  return weight;
}

}  // namespace

Linear::Linear(std::int64_t in_features, std::int64_t out_features, bool bias)
    : Linear(make_parameter({checked(in_features, out_features), in_features}),
             bias ? make_parameter({out_features}) : Tensor{}) {}

Linear::Linear(Tensor weight, Tensor bias)
    : weight_(add_parameter("weight", checked_weight(std::move(weight)))),
      bias_(add_parameter("bias", std::move(bias))) {}

Tensor Linear::forward(const Tensor& x) {
  return linear(x, weight_, bias_);
}

std::string Linear::describe() const {
  return fmt::format("{}({} -> {}{})", kind(), in_features(), out_features(),
                     bias_.defined() ? ", bias" : "");
}

}  // namespace qtrain
