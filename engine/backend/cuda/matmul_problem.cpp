#include "engine/backend/cuda/matmul_problem.h"

#include <fmt/format.h>

namespace qtrain::cuda {
namespace {

ColumnMajor transpose_of(const Tensor& t, bool transposed) {
  return {.rows = t.dim(1),
          .columns = t.dim(0),
          .leading = t.dim(1),
          .transposed = transposed,
          .dtype = t.dtype()};
}

void append(std::vector<std::int64_t>& key, const ColumnMajor& m) {
  key.insert(key.end(), {m.rows, m.columns, m.transposed ? 1 : 0, static_cast<std::int64_t>(m.dtype)});
}

std::string str(const ColumnMajor& m) {
  return fmt::format("{}[{}, {}]{}", name_of(m.dtype), m.columns, m.rows, m.transposed ? " transposed" : "");
}

}  // namespace

std::vector<std::int64_t> MatmulProblem::key() const {
  std::vector<std::int64_t> key{static_cast<std::int64_t>(math),
                                bias ? static_cast<std::int64_t>(*bias) + 1 : 0};
  append(key, left);
  append(key, right);
  append(key, result);
  return key;
}

std::string MatmulProblem::str() const {
  return fmt::format("matmul a {} b {} c {}{}{}", cuda::str(right), cuda::str(left), cuda::str(result),
                     bias ? fmt::format(" bias {}", name_of(*bias)) : std::string(),
                     math == MathMode::tf32 ? " tf32" : "");
}

MatmulProblem matmul_problem(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                             const Tensor& bias, const Tensor& c, MathMode math) {
  MatmulProblem problem{.left = transpose_of(b, transpose_b),
                        .right = transpose_of(a, transpose_a),
                        .result = transpose_of(c, false),
                        .bias = std::nullopt,
                        .math = math};
  if (bias.defined()) problem.bias = bias.dtype();
  return problem;
}

}  // namespace qtrain::cuda
