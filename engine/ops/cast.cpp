#include "engine/ops/cast.h"

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/kernels/convert.h"
#include "engine/kernels/float_type.h"
#include "engine/ops/check.h"

namespace qtrain {
namespace {

Tensor converted(const Tensor& x, DType dtype) {
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  convert(backend(x.device()).stream(), x, y);
  return y;
}

// Who saves the output keeps the input instead, which is often kept anyway or can itself be made again.
struct CastNode final : Node {
  SavedTensor x{"x"};
  DType from = DType::f32;
  DType to = DType::f32;

  std::string_view name() const override { return "cast"; }
  std::vector<SavedTensor*> saved() override { return {&x}; }
  bool can_recompute() const override { return true; }
  Tensor recompute(std::size_t /*output*/) override { return converted(x.get(), to); }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    return {converted(grad_outputs[0], from)};
  }
};

}  // namespace

Tensor cast(const Tensor& x, DType dtype) {
  check::floats("cast", "x", x);
  if (!is_float_type(dtype))
    throw DTypeError({.where = "cast",
                      .what = "no such conversion",
                      .got = x.str() + " to " + std::string(name_of(dtype)),
                      .expected = "f32 or bf16",
                      .hint = ""});
  if (x.dtype() == dtype) return x;
  return Tape::record<CastNode>("cast", {x}, converted(x, dtype), [&](CastNode& node) {
    node.x.save(x);
    node.from = x.dtype();
    node.to = dtype;
  });
}

}  // namespace qtrain
