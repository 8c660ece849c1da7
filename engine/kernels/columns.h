// Loops over the columns (channels) of a row-major matrix, sixteen at a time with scalar code for the rest,
// from one generic body: body(load, ...) gets Vec or float depending on `load`.
#pragma once

#include <array>
#include <cstdint>

#include "engine/kernels/simd.h"

namespace qtrain {

struct VectorAccess {
  simd::Vec operator()(const float* p) const { return simd::load(p); }
  void store(float* p, simd::Vec v) const { simd::store(p, v); }
};

struct ScalarAccess {
  float operator()(const float* p) const { return *p; }
  void store(float* p, float v) const { *p = v; }
};

// value where `condition` > 0, else 0.
inline float select_positive(float condition, float value) {
  return condition > 0 ? value : 0.0F;
}
inline simd::Vec select_positive(simd::Vec condition, simd::Vec value) {
  return condition > 0 ? value : simd::Vec{};
}

template <class Body>
void for_columns(std::int64_t columns, Body&& body) {
  std::int64_t c = 0;
  for (; c + simd::width <= columns; c += simd::width) body(VectorAccess{}, c);
  for (; c < columns; ++c) body(ScalarAccess{}, c);
}

namespace detail {

// Sums `Columns` vectors of columns starting at c over all rows, `Rows` rows at a time so that additions of
// neighbouring rows don't wait for one another.
template <int K, int Columns, int Rows, class Body>
void reduce_column_group(std::int64_t rows, std::int64_t columns, std::int64_t c,
                         const std::array<float*, K>& sums, Body&& body) {
  constexpr VectorAccess load;
  simd::Vec total[K][Rows][Columns] = {};
  std::int64_t r = 0;
  for (; r + Rows <= rows; r += Rows)
    for (int u = 0; u < Rows; ++u)
      for (int v = 0; v < Columns; ++v) {
        const std::int64_t at = c + v * simd::width;
        const std::array<simd::Vec, K> terms = body(load, (r + u) * columns + at, at);
        for (int k = 0; k < K; ++k) total[k][u][v] += terms[static_cast<std::size_t>(k)];
      }
  for (; r < rows; ++r)
    for (int v = 0; v < Columns; ++v) {
      const std::int64_t at = c + v * simd::width;
      const std::array<simd::Vec, K> terms = body(load, r * columns + at, at);
      for (int k = 0; k < K; ++k) total[k][0][v] += terms[static_cast<std::size_t>(k)];
    }
  for (int k = 0; k < K; ++k)
    for (int v = 0; v < Columns; ++v) {
      simd::Vec sum = total[k][0][v];
      for (int u = 1; u < Rows; ++u) sum += total[k][u][v];
      simd::store(sums[static_cast<std::size_t>(k)] + c + v * simd::width, sum);
    }
}

}  // namespace detail

// sums[k][c] = sum over rows of body(load, row * columns + c, c)[k].
template <int K, class Body>
void reduce_columns(std::int64_t rows, std::int64_t columns, const std::array<float*, K>& sums, Body&& body) {
  std::int64_t c = 0;
  for (; c + 4 * simd::width <= columns; c += 4 * simd::width)
    detail::reduce_column_group<K, 4, 1>(rows, columns, c, sums, body);
  for (; c + 2 * simd::width <= columns; c += 2 * simd::width)
    detail::reduce_column_group<K, 2, 2>(rows, columns, c, sums, body);
  for (; c + simd::width <= columns; c += simd::width)
    detail::reduce_column_group<K, 1, 4>(rows, columns, c, sums, body);
  for (; c < columns; ++c) {
    std::array<float, K> total{};
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::array<float, K> terms = body(ScalarAccess{}, r * columns + c, c);
      for (std::size_t k = 0; k < K; ++k) total[k] += terms[k];
    }
    for (std::size_t k = 0; k < K; ++k) sums[k][c] = total[k];
  }
}

}  // namespace qtrain
