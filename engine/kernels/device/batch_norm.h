// Batch norm on a GPU, with what is fused into it. Statistics read x once; forward is one more pass; backward
// is two. Sums go from float32 in a thread to double in a tree over a block's rows to a merge over the
// blocks.
#pragma once

#include <type_traits>

#include "engine/kernels/batch_norm_arguments.h"
#include "engine/kernels/bordered_rows.h"
#include "engine/kernels/device/block_sums.h"
#include "engine/kernels/device/columns.h"
#include "engine/kernels/device/statistics.h"
#include "engine/kernels/parallel.h"

namespace qtrain::device {

// --- what y is made of

template <class T>
struct NormalizedColumns {
  static constexpr int packet = packet_size<T>;
  const T* x;
  const T* other;  // the residual, or y itself; or nullptr
  bool other_is_y;
  const float* coefficients;
  bool relu;
  bool packed;
};

// A thread's columns.
template <class T>
class Normalizer {
 public:
  static constexpr int packet = packet_size<T>;

  QTRAIN_HOST_DEVICE Normalizer(const NormalizedColumns<T>& of, std::int64_t column, std::int64_t columns)
      : of_(of), valid_(columns - column < packet ? columns - column : packet) {
    for (int j = 0; j < packet; ++j) {
      const std::int64_t c = j < valid_ ? column + j : column;
      mean_[j] = number(Coefficient::mean, c, columns);
      slope_[j] = number(Coefficient::slope, c, columns);
      beta_[j] = number(Coefficient::beta, c, columns);
    }
  }

  // x and y of elements i, i + 1, ...: y as tensors hold it, as that is what a quantizer sees.
  QTRAIN_HOST_DEVICE void load(std::int64_t i, float (&x)[packet], float (&y)[packet]) const {
    float other[packet] = {};
    load_columns(x, of_.x + i, of_.packed, valid_);
    if (of_.other != nullptr) load_columns(other, of_.other + i, of_.packed, valid_);
    for (int j = 0; j < packet; ++j) {
      float v = normalize(x[j], mean_[j], slope_[j], beta_[j]);
      if (of_.other != nullptr && !of_.other_is_y) v += other[j];
      if (of_.relu) v = rectify(v);
      y[j] = of_.other_is_y ? other[j] : as_stored(v);
    }
  }

  QTRAIN_HOST_DEVICE float deviation(float x, int j) const { return x - mean_[j]; }
  QTRAIN_HOST_DEVICE float slope(int j) const { return slope_[j]; }
  QTRAIN_HOST_DEVICE bool relu() const { return of_.relu; }
  QTRAIN_HOST_DEVICE bool packed() const { return of_.packed; }
  QTRAIN_HOST_DEVICE std::int64_t valid() const { return valid_; }

 private:
  QTRAIN_HOST_DEVICE float number(Coefficient row, std::int64_t c, std::int64_t columns) const {
    return of_.coefficients[static_cast<std::int64_t>(row) * columns + c];
  }
  QTRAIN_HOST_DEVICE static float as_stored(float v) {
    T stored;
    store(stored, v);
    return qtrain::load(stored);
  }

  NormalizedColumns<T> of_;
  std::int64_t valid_;
  float mean_[packet], slope_[packet], beta_[packet];
};

// --- forward

// q = f(y), and y itself where there is a place for it. With Identity there is no q. Rows: BorderedRows or
// NoBorder.
template <class T, class F, class Rows>
struct NormalizeMap {
  static constexpr int packet = packet_size<T>;
  static constexpr int threads = ColumnTiles<packet>::threads;
  using Shared = NothingShared;

  ColumnTiles<packet> tiles;
  NormalizedColumns<T> of;
  F f;
  T* q;
  T* y;
  Rows rows;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    const std::int64_t columns = tiles.columns();
    const std::int64_t column = tiles.column(t);
    if (column >= columns) return;
    const Normalizer<T> normalizer(of, column, columns);
    F local = f;
    qtrain::detail::prepare_group(local, 0);
    [[maybe_unused]] float of_border[packet] = {};
    if constexpr (has_border<Rows>)
      for (float& v : of_border) v = local(0.0F);
    const std::int64_t end = tiles.end(tiles.chunk(t.block));
    for (std::int64_t row = tiles.first_row(t); row < end; row += tiles.down()) {
      const std::int64_t i = row * columns + column;
      float x[packet], values[packet];
      normalizer.load(i, x, values);
      if (y != nullptr) store_columns(y + i, values, of.packed, normalizer.valid());
      if constexpr (!std::is_same_v<F, Identity>) {
        for (int j = 0; j < packet; ++j) values[j] = local(values[j]);
        store_columns(q + rows.at(i), values, of.packed, normalizer.valid());
        rows.visit_share(
            i, [&](std::int64_t at) { store_columns(q + at, of_border, of.packed, normalizer.valid()); });
      }
    }
  }
};

// --- backward

// dL/dy behind the ReLU, from dL/dq and what else arrives.
template <class T, int K, class Math, class Rows>
struct ColumnGradients {
  NormalizedColumns<T> of;
  Math math;
  const T* grad;
  const T* addend;  // or nullptr
  Rows rows;        // of grad

  static constexpr int packet = packet_size<T>;

  // g[j] for the elements from i on; adds to terms.
  template <class F>
  QTRAIN_HOST_DEVICE void load(const Normalizer<T>& normalizer, const F& local, std::int64_t i,
                               float (&x)[packet], float (&g)[packet], [[maybe_unused]] float* terms) const {
    float y[packet], from[packet], more[packet] = {};
    normalizer.load(i, x, y);
    load_columns(from, grad + rows.at(i), of.packed, normalizer.valid());
    if (addend != nullptr) load_columns(more, addend + i, of.packed, normalizer.valid());
    for (int j = 0; j < packet; ++j) {
      if constexpr (std::is_same_v<Math, Identity>) {
        g[j] = from[j];
      } else if constexpr (K == 0) {
        g[j] = local(y[j], from[j]);
      } else {
        const auto mapped = local(y[j], from[j]);
        g[j] = mapped.value;
        if (j < normalizer.valid()) qtrain::detail::add_terms<Sum>(terms, mapped.terms);
      }
      if (addend != nullptr) g[j] += more[j];
      if (of.relu && !(y[j] > 0)) g[j] = 0;
    }
  }

  // Adds those of the border's elements that go with the elements from i on.
  template <class F>
  QTRAIN_HOST_DEVICE void add_border(const Normalizer<T>& normalizer, const F& local, std::int64_t i,
                                     float* terms) const {
    rows.visit_share(i, [&](std::int64_t at) {
      float from[packet];
      load_columns(from, grad + at, of.packed, normalizer.valid());
      for (int j = 0; j < packet; ++j)
        if (j < normalizer.valid()) qtrain::detail::add_terms<Sum>(terms, local(0.0F, from[j]).terms);
    });
  }
};

// First pass: sums of g and g (x - mean) of each column and chunk, the K terms of each block, the residual's
// gradient.
template <class T, int K, class Math, class Rows>
struct GradientSums {
  static constexpr int packet = packet_size<T>;
  static constexpr int threads = ColumnTiles<packet>::threads;
  static constexpr int kept = std::max(2 * packet, K);
  struct Shared {
    double values[kept][threads];
  };

  ColumnTiles<packet> tiles;
  ColumnGradients<T, K, Math, Rows> gradients;
  T* grad_residual;  // or nullptr
  float* partial;    // [chunks][2][C]
  double* terms;     // [blocks][K]

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const std::int64_t columns = tiles.columns();
    const std::int64_t column = tiles.column(t);
    float sum_g[packet] = {}, sum_gx[packet] = {}, sum_terms[std::max(K, 1)] = {};
    if (column < columns) {
      const Normalizer<T> normalizer(gradients.of, column, columns);
      Math local = gradients.math;
      qtrain::detail::prepare_group(local, 0);
      const std::int64_t end = tiles.end(tiles.chunk(t.block));
      for (std::int64_t row = tiles.first_row(t); row < end; row += tiles.down()) {
        const std::int64_t i = row * columns + column;
        float x[packet], g[packet];
        gradients.load(normalizer, local, i, x, g, sum_terms);
        if constexpr (K > 0) gradients.add_border(normalizer, local, i, sum_terms);
        if (grad_residual != nullptr)
          store_columns(grad_residual + i, g, normalizer.packed(), normalizer.valid());
        for (int j = 0; j < packet; ++j) {
          sum_g[j] += g[j];
          sum_gx[j] += g[j] * normalizer.deviation(x[j], j);
        }
      }
    }
    for (int j = 0; j < packet; ++j) {
      shared.values[j][t.thread] = static_cast<double>(sum_g[j]);
      shared.values[packet + j][t.thread] = static_cast<double>(sum_gx[j]);
    }
    combine_threads<Sum>(t, shared.values, 2 * packet, tiles.across());
    if (t.thread < tiles.across()) {
      float* const to = partial + tiles.chunk(t.block) * 2 * columns;
      for (int j = 0; j < packet; ++j)
        if (column + j < columns) {
          to[column + j] = static_cast<float>(shared.values[j][t.thread]);
          to[columns + column + j] = static_cast<float>(shared.values[packet + j][t.thread]);
        }
    }
    if constexpr (K > 0) {
      t.sync();
      for (int k = 0; k < K; ++k) shared.values[k][t.thread] = static_cast<double>(sum_terms[k]);
      combine_threads<Sum>(t, shared.values, K, 1);
      if (t.thread < K) terms[t.block * K + t.thread] = shared.values[t.thread][0];
    }
  }
};

// Between the passes: over the chunks of 8 columns a block, and in a block of its own over the terms of all
// blocks.
template <int K>
struct MergeGradients {
  static constexpr int threads = 256;
  static constexpr int columns_each = 8;
  struct Shared {
    double values[std::max(2, K)][threads];
  };

  std::int64_t columns, chunks;
  const float* partial;
  BatchNormGradientMerge merge;
  std::int64_t term_blocks;
  const double* terms;
  float* sums[std::max(K, 1)];  // or nullptr

  std::int64_t blocks() const { return (columns + columns_each - 1) / columns_each + (K > 0 ? 1 : 0); }

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    if (K > 0 && t.block == t.blocks - 1) return add_terms(t, shared);
    const std::int64_t c = t.block * columns_each + t.thread % columns_each;
    double sum_g = 0, sum_gx = 0;
    if (c < columns)
      for (std::int64_t b = t.thread / columns_each; b < chunks; b += threads / columns_each) {
        sum_g += static_cast<double>(partial[b * 2 * columns + c]);
        sum_gx += static_cast<double>(partial[(b * 2 + 1) * columns + c]);
      }
    shared.values[0][t.thread] = sum_g;
    shared.values[1][t.thread] = sum_gx;
    combine_threads<Sum>(t, shared.values, 2, columns_each);
    if (t.thread < columns_each && c < columns)
      merge(c, shared.values[0][t.thread], shared.values[1][t.thread]);
  }

 private:
  template <class Thread>
  QTRAIN_HOST_DEVICE void add_terms(const Thread& t, Shared& shared) const {
    for (int k = 0; k < K; ++k) {
      double total = 0;
      for (std::int64_t b = t.thread; b < term_blocks; b += threads) total += terms[b * K + k];
      shared.values[k][t.thread] = total;
    }
    combine_threads<Sum>(t, shared.values, K, 1);
    if (t.thread < K && sums[t.thread] != nullptr)
      *sums[t.thread] = static_cast<float>(shared.values[t.thread][0]);
  }
};

// Second pass. May write over the gradient it reads.
template <class T, int K, class Math, class Rows>
struct GradientOfX {
  static constexpr int packet = packet_size<T>;
  static constexpr int threads = ColumnTiles<packet>::threads;
  using Shared = NothingShared;

  ColumnTiles<packet> tiles;
  ColumnGradients<T, K, Math, Rows> gradients;
  const float* mean_g;
  const float* along_x;
  T* grad_x;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    const std::int64_t columns = tiles.columns();
    const std::int64_t column = tiles.column(t);
    if (column >= columns) return;
    const Normalizer<T> normalizer(gradients.of, column, columns);
    Math local = gradients.math;
    qtrain::detail::prepare_group(local, 0);
    float offset[packet], along[packet], unused[std::max(K, 1)] = {};
    for (int j = 0; j < packet; ++j) {
      const std::int64_t c = j < normalizer.valid() ? column + j : column;
      offset[j] = mean_g[c];
      along[j] = along_x[c];
    }
    const std::int64_t end = tiles.end(tiles.chunk(t.block));
    for (std::int64_t row = tiles.first_row(t); row < end; row += tiles.down()) {
      const std::int64_t i = row * columns + column;
      float x[packet], g[packet];
      gradients.load(normalizer, local, i, x, g, unused);
      for (int j = 0; j < packet; ++j)
        g[j] = normalizer.slope(j) * (g[j] - offset[j] - normalizer.deviation(x[j], j) * along[j]);
      store_columns(grad_x + i, g, normalizer.packed(), normalizer.valid());
    }
  }
};

// --- launches

namespace detail {

inline constexpr std::int64_t rows_of_sums = 32;  // of a thread
inline constexpr std::int64_t rows_of_maps = 8;

template <class T>
T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

template <class T>
bool fits_packets(const Tensor& x, std::initializer_list<const T*> arrays) {
  constexpr int packet = packet_size<T>;
  return x.dim(1) % packet == 0 &&
         std::ranges::all_of(arrays, [](const T* a) { return a == nullptr || is_aligned<packet>(a); });
}

template <class T>
ColumnTiles<packet_size<T>> tiles_of(const Tensor& x, std::int64_t rows_each) {
  return {x.numel() / x.dim(1), x.dim(1), rows_each};
}

}  // namespace detail

template <class T, class F, class Rows = NoBorder>
void batch_norm_map(const Stream& stream, const BatchNormOutput& of, const F& f, const Tensor& q,
                    const Tensor& y, const Rows& rows = {}) {
  const T* const x = of.x.data<T>();
  const T* const residual = detail::data_or_null<T>(of.residual);
  T* const to_q = detail::data_or_null<T>(q);
  T* const to_y = detail::data_or_null<T>(y);
  const bool packed = detail::fits_packets<T>(of.x, {x, residual, to_q, to_y});
  const auto tiles = detail::tiles_of<T>(of.x, detail::rows_of_maps);
  launch(
      stream, tiles.blocks(),
      NormalizeMap<T, F, Rows>{
          tiles, {x, residual, false, of.coefficients.data<float>(), of.relu, packed}, f, to_q, to_y, rows});
}

template <class T, int K, class Math, class Rows = NoBorder>
void batch_norm_backward(const Stream& stream, const BatchNormBackward& a, const Math& math,
                         const BatchNormSums<K>& sums = {}, const Rows& rows = {}) {
  const Tensor& x = a.of.x;
  const bool has_y = a.y.defined();
  const T* const other = has_y ? a.y.data<T>() : detail::data_or_null<T>(a.of.residual);
  T* const grad_residual = detail::data_or_null<T>(a.gradients.residual);
  T* const grad_x = detail::data_or_null<T>(a.gradients.x);
  const T* const grad = a.grad.data<T>();
  const T* const addend = detail::data_or_null<T>(a.addend);
  const bool packed = detail::fits_packets<T>(x, {x.data<T>(), other, grad, addend, grad_residual, grad_x});
  const NormalizedColumns<T> of{x.data<T>(), other, has_y, a.of.coefficients.data<float>(),
                                a.of.relu,   packed};
  const std::int64_t columns = x.dim(1);
  const std::int64_t n = x.numel() / columns;
  const auto tiles = detail::tiles_of<T>(x, detail::rows_of_sums);
  const Scratch<float> partial(stream, tiles.chunks() * 2 * columns);
  const Scratch<double> terms(stream, tiles.blocks() * std::max(K, 1));
  const Scratch<float> numbers(stream, 2 * columns);
  const ColumnGradients<T, K, Math, Rows> gradients{of, math, grad, addend, rows};
  launch(stream, tiles.blocks(),
         GradientSums<T, K, Math, Rows>{tiles, gradients, grad_residual, partial.data(), terms.data()});
  MergeGradients<K> merge{
      columns,
      tiles.chunks(),
      partial.data(),
      {coefficient(a.of.coefficients, Coefficient::invstd), static_cast<double>(n), a.training,
       detail::data_or_null<float>(a.gradients.gamma), detail::data_or_null<float>(a.gradients.beta),
       numbers.data(), numbers.data() + columns},
      tiles.blocks(),
      terms.data(),
      {}};
  std::copy(sums.begin(), sums.end(), merge.sums);
  launch(stream, merge.blocks(), merge);
  if (grad_x == nullptr) return;
  const auto more_tiles = detail::tiles_of<T>(x, detail::rows_of_maps);
  const float* const mean_g = numbers.data();
  const float* const along_x = numbers.data() + columns;
  if (grad_residual != nullptr) {  // is g behind the ReLU
    const NormalizedColumns<T> plain{x.data<T>(), nullptr, false, a.of.coefficients.data<float>(),
                                     false,       packed};
    launch(stream, more_tiles.blocks(),
           GradientOfX<T, 0, Identity, NoBorder>{
               more_tiles, {plain, {}, grad_residual, nullptr, {}}, mean_g, along_x, grad_x});
  } else {
    launch(stream, more_tiles.blocks(),
           GradientOfX<T, K, Math, Rows>{more_tiles, gradients, mean_g, along_x, grad_x});
  }
}

}  // namespace qtrain::device
