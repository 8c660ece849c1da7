#include "quant/switchable_batch_norm.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/core/error.h"
#include "quant/quantizer.h"

namespace qtrain::quant {
namespace {

Tensor own_copy(const Tensor& values) {
  return values.clone().set_requires_grad(true);
}

}  // namespace

SwitchableBatchNorm2d::SwitchableBatchNorm2d(const BatchNorm2d& source, BitsList list, bool shared_affine)
    : list_(std::move(list)),
      bits_(list_.widths().back()),
      channels_(source.channels()),
      shared_weight_(add_parameter("weight", shared_affine ? own_copy(source.weight()) : Tensor())),
      shared_bias_(add_parameter("bias", shared_affine ? own_copy(source.bias()) : Tensor())) {
  for (const int bits : list_.widths())
    entries_.push_back(add<Normalization>(
        fmt::format("bits{}", bits), std::make_shared<BatchNorm2d>(source, shared_weight_, shared_bias_)));
}

void SwitchableBatchNorm2d::set_bits(int bits) {
  if (bits < 1 || bits > float_bits)
    throw ValueError({.where = kind(),
                      .what = "bit-width out of range",
                      .got = std::to_string(bits),
                      .expected = "1..32",
                      .hint = ""});
  list_.entry_of(bits);
  bits_ = bits;
}

Tensor SwitchableBatchNorm2d::forward(const Tensor& x, bool relu, const Tensor& residual) {
  return entries_[list_.entry_of(bits_)](x, relu, residual);
}

std::string SwitchableBatchNorm2d::describe() const {
  return fmt::format("{}({}, for {} bits, {} active)", kind(), channels_, fmt::join(list_.widths(), ", "),
                     bits_);
}

}  // namespace qtrain::quant
