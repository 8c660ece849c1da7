// Batch normalization and what is computed in the same pass over memory. x is a matrix of rows = N*H*W and C
// columns; a channel's numbers are a column of `coefficients`, so that nothing else has to be kept:
//   y = act((x - mean) slope + beta + residual), slope = gamma invstd, act = ReLU or identity
//
//   batch_norm_statistics(...)           coefficients from the batch
//   batch_norm_coefficients(...)         coefficients from running statistics
//   batch_norm_output(stream, of, y)     y
//   batch_norm_map(stream, of, f, q, y)  q = f(y) and, where it is defined, y
//   batch_norm_backward<K>(stream, arguments, math, sums)
//     {g, terms} = math(y, dL/dq), *sums[k] = sum of terms[k], where sums[k] isn't nullptr; g is dL/dy; and
//     from it all gradients. With K = 0, math returns g alone. Identity{}: nothing follows y, arguments.grad
//     is dL/dy.
//
// The last two take BorderedRows as one more argument where q and dL/dq are images with a border that y
// lacks: f(0) fills q's border, and the sums include the terms of math(0, dL/dq) there.
//
// With s = the sum over rows of g behind the ReLU and t = that of g (x - mean), of n rows:
//   dL/dbeta = s, dL/dgamma = t invstd, dL/dresidual = g,
//   dL/dx = slope (g - s/n - (x - mean) invstd^2 t/n); in evaluation only slope g.
// Two passes: the sums, then dL/dx. Sums have a fixed order, whatever the number of threads.
#pragma once

#include <functional>
#include <span>

#include "engine/kernels/batch_norm_arguments.h"
#include "engine/kernels/bordered.h"
#include "engine/kernels/device/batch_norm.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_type.h"

namespace qtrain {

// running = (1 - momentum) running + momentum batch, with the unbiased variance; may be undefined.
void batch_norm_statistics(const Stream& stream, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                           float epsilon, float momentum, const Tensor& running_mean,
                           const Tensor& running_variance, const Tensor& coefficients);
void batch_norm_coefficients(const Stream& stream, const Tensor& gamma, const Tensor& beta,
                             const Tensor& mean, const Tensor& variance, float epsilon,
                             const Tensor& coefficients);

void batch_norm_output(const Stream& stream, const BatchNormOutput& of, const Tensor& y);

namespace detail {

void batch_norm_statistics_on_host(const Tensor& x, const BatchNormTraining& finish);

// The host runs math over tiles that stay in cache: `count` elements of y and from `first` on of the tensors.
using OutputTile = std::function<void(const float* y, std::int64_t first, std::int64_t count)>;
void batch_norm_tiles(const BatchNormOutput& of, const Tensor& y, const OutputTile& tile);

// g[i] from y[i] and element first + i of the tensors; adds to terms[k].
using GradientTile =
    std::function<void(const float* y, std::int64_t first, std::int64_t count, float* g, double* terms)>;
// tile: nullptr for Identity.
void batch_norm_backward_tiles(const BatchNormBackward& arguments, const GradientTile& tile,
                               std::span<float* const> sums);

}  // namespace detail

// bf16 on the host: batch_norm_widened.h.
namespace through_f32 {
void batch_norm_output(const Stream& stream, const BatchNormOutput& of, const Tensor& y);
template <class F, class Rows>
void batch_norm_map(const Stream& stream, const BatchNormOutput& of, const F& f, const Tensor& q,
                    const Tensor& y, const Rows& rows);
template <int K, class Math, class Rows>
void batch_norm_backward(const Stream& stream, const BatchNormBackward& a, const Math& math,
                         const BatchNormSums<K>& sums, const Rows& rows);
}  // namespace through_f32

// q has x's shape, with the border if there is one.
template <class F, class Rows = NoBorder>
void batch_norm_map(const Stream& stream, const BatchNormOutput& of, F f, const Tensor& q, const Tensor& y,
                    const Rows& rows = {}) {
  if (on_device(stream))
    return with_float_type(
        q.dtype(), [&](auto type) { device::batch_norm_map<decltype(type)>(stream, of, f, q, y, rows); });
  if (q.dtype() == DType::bf16) return through_f32::batch_norm_map(stream, of, f, q, y, rows);
  detail::prepare_group(f, 0);
  float* const out = q.data<float>();
  const float of_border = f(0.0F);
  detail::batch_norm_tiles(of, y, [&](const float* values, std::int64_t first, std::int64_t count) {
    rows.visit(
        first, count,
        [&](std::int64_t at, std::int64_t from, std::int64_t n) {
          detail::map_block(f, 0, n, out + at, values + (from - first));
        },
        [&](std::int64_t at, std::int64_t n) { std::fill_n(out + at, n, of_border); });
  });
}

template <int K, class Math, class Rows = NoBorder>
void batch_norm_backward(const Stream& stream, const BatchNormBackward& arguments, Math math,
                         const BatchNormSums<K>& sums = {}, const Rows& rows = {}) {
  if (on_device(stream))
    return with_float_type(arguments.grad.dtype(), [&](auto type) {
      device::batch_norm_backward<decltype(type), K>(stream, arguments, math, sums, rows);
    });
  if (arguments.grad.dtype() == DType::bf16)
    return through_f32::batch_norm_backward<K>(stream, arguments, math, sums, rows);
  if constexpr (std::is_same_v<Math, Identity>) {
    detail::batch_norm_backward_tiles(arguments, nullptr, {});
  } else {
    detail::prepare_group(math, 0);
    const float* const grad = arguments.grad.data<float>();
    const auto tile = [&](const float* y, std::int64_t first, std::int64_t count, float* g,
                          [[maybe_unused]] double* terms) {
      if constexpr (K == 0) {
        rows.visit(
            first, count,
            [&](std::int64_t at, std::int64_t from, std::int64_t n) {
              detail::map_block(math, 0, n, g + (from - first), y + (from - first), grad + at);
            },
            [](std::int64_t, std::int64_t) {});
      } else {
        detail::LaneSums<K, Sum> lane_sums;
        rows.visit(
            first, count,
            [&](std::int64_t at, std::int64_t from, std::int64_t n) {
              detail::add_inside(lane_sums, math, n, g + (from - first), grad + at, y + (from - first));
            },
            [&](std::int64_t at, std::int64_t n) { detail::add_around(lane_sums, math, n, grad + at); });
        double results[K];
        lane_sums.total(results);
        for (int k = 0; k < K; ++k) terms[k] += results[k];
      }
    };
    detail::batch_norm_backward_tiles(arguments, tile, sums);
  }
}

}  // namespace qtrain

#include "engine/kernels/batch_norm_widened.h"  // the definitions
