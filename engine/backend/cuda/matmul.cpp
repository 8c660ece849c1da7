#include "engine/backend/cuda/backend_parts.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/core/error.h"

namespace qtrain {

void CudaBackend::matmul(const Stream& stream, const Tensor& a, bool transpose_a, const Tensor& b,
                         bool transpose_b, const Tensor& bias, const Tensor& c) {
  cuda::MatrixProducts& products = parts_->products();
  cuda::MatmulProblem problem = cuda::matmul_problem(a, transpose_a, b, transpose_b, bias, c, math_);
  const cuda::MatmulPointers pointers{
      .left = b.raw(), .right = a.raw(), .result = c.raw(), .bias = bias.defined() ? bias.raw() : nullptr};
  if (products.run(stream, problem, pointers)) return;
  if (problem.bias) {  // its epilogue takes a bias of the result's element type only
    problem.bias.reset();
    if (products.run(stream, problem, pointers)) return cuda::add_channels(stream, c, bias);
  }
  throw DeviceError({.where = "matmul",
                     .what = "cuBLASLt has no algorithm for this product",
                     .got = problem.str(),
                     .expected = "",
                     .hint = "use --device cpu"});
}

}  // namespace qtrain
