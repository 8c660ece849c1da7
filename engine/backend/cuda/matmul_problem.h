// A matrix product as cuBLASLt sees it. Plain C++, tested without a GPU.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend/settings.h"
#include "engine/core/dtype.h"
#include "engine/core/tensor.h"

namespace qtrain::cuda {

// Stored column by column: element (r, c) at r + c * leading.
struct ColumnMajor {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t leading = 0;
  bool transposed = false;  // its transpose is multiplied
  DType dtype = DType::f32;
};

// c = op(a) op(b) + bias for matrices that are stored row by row. What is a row-major matrix to us is its
// transpose to cuBLASLt, so it computes c^T = op(b)^T op(a)^T: `left` is our b and `right` our a, each with
// the transposition that was asked for, and a bias for each column of c is one for each row of c^T, which is
// what its epilogue adds.
struct MatmulProblem {
  ColumnMajor left;
  ColumnMajor right;
  ColumnMajor result;
  std::optional<DType> bias;
  MathMode math = MathMode::fp32;

  std::vector<std::int64_t> key() const;
  std::string str() const;  // "matmul f32 [4, 8] x [8, 3] ...": in our terms
};

MatmulProblem matmul_problem(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                             const Tensor& bias, const Tensor& c, MathMode math);

}  // namespace qtrain::cuda
