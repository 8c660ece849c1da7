// The machinery between images and images with a border on a GPU: a block of threads takes some rows.
#pragma once

#include "engine/kernels/bordered_rows.h"
#include "engine/kernels/device/block_sums.h"
#include "engine/kernels/element.h"

namespace qtrain::device {

template <class F, class Border>
struct BorderedMap {
  static constexpr int threads = 256;
  using Shared = NothingShared;

  BorderedRows rows;
  F f;
  Border border;
  float* wide;
  const float* in;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    F local = f;
    qtrain::detail::prepare_group(local, 0);
    const float of_border = border(local);
    rows.visit(
        t.block,
        [&](std::int64_t at, std::int64_t from, std::int64_t n) {
          for (std::int64_t i = t.thread; i < n; i += threads) wide[at + i] = local(in[from + i]);
        },
        [&](std::int64_t at, std::int64_t n) {
          for (std::int64_t i = t.thread; i < n; i += threads) wide[at + i] = of_border;
        });
  }
};

template <class F, bool has_in>
struct InsideMap {
  static constexpr int threads = 256;
  using Shared = NothingShared;

  BorderedRows rows;
  F f;
  float* out;
  const float* wide;
  const float* in;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    F local = f;
    qtrain::detail::prepare_group(local, 0);
    rows.visit(
        t.block,
        [&](std::int64_t at, std::int64_t from, std::int64_t n) {
          for (std::int64_t i = t.thread; i < n; i += threads) {
            if constexpr (has_in)
              out[from + i] = local(in[from + i], wide[at + i]);
            else
              out[from + i] = local(wide[at + i]);
          }
        },
        [](std::int64_t, std::int64_t) {});
  }
};

template <int K, class F>
struct BorderedReduce {
  static constexpr int threads = reduction_threads;
  using Shared = BlockSums<K>;

  BorderedRows rows;
  std::int64_t rows_of_block;
  F f;
  float* sums;
  double* partial;  // [blocks][K]
  std::uint32_t* arrivals;
  float* out;
  const float* wide;
  const float* in;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    F local = f;
    qtrain::detail::prepare_group(local, 0);
    float own[K]{};
    const std::int64_t first = t.block * rows_of_block;
    for (std::int64_t row = first; row < first + rows_of_block && row < rows.count(); ++row)
      rows.visit(
          row,
          [&](std::int64_t at, std::int64_t from, std::int64_t n) {
            for (std::int64_t i = t.thread; i < n; i += threads) {
              const Mapped<K> mapped = local(in[from + i], wide[at + i]);
              out[from + i] = mapped.value;
              add(own, mapped.terms, std::make_index_sequence<K>());
            }
          },
          [&](std::int64_t at, std::int64_t n) {
            for (std::int64_t i = t.thread; i < n; i += threads)
              add(own, local(0.0F, wide[at + i]).terms, std::make_index_sequence<K>());
          });
    for (int k = 0; k < K; ++k) shared.values[k][t.thread] = static_cast<double>(own[k]);
    combine_threads<Sum>(t, shared);
    if (t.thread < K) partial[t.block * K + t.thread] = shared.values[t.thread][0];
    if (t.arrive_last(arrivals)) merge_parts<Sum>(t, shared, partial, K, 1, t.blocks, sums);
  }

 private:
  template <std::size_t... k>
  QTRAIN_HOST_DEVICE static void add(float* sums, const Terms<K>& terms, std::index_sequence<k...>) {
    ((sums[k] += term<static_cast<int>(k)>(terms)), ...);
  }
};

template <class F, class Border>
void map_bordered(const Stream& stream, const BorderedRows& rows, const F& f, const Border& border,
                  float* wide, const float* in) {
  launch(stream, rows.count(), BorderedMap<F, Border>{rows, f, border, wide, in});
}

template <class F>
void map_inside(const Stream& stream, const BorderedRows& rows, const F& f, float* out, const float* wide) {
  launch(stream, rows.count(), InsideMap<F, false>{rows, f, out, wide, nullptr});
}
template <class F>
void map_inside(const Stream& stream, const BorderedRows& rows, const F& f, float* out, const float* wide,
                const float* in) {
  launch(stream, rows.count(), InsideMap<F, true>{rows, f, out, wide, in});
}

template <int K, class F>
void map_reduce_bordered(const Stream& stream, const BorderedRows& rows, const F& f, float* sums, float* out,
                         const float* wide, const float* in) {
  const std::int64_t blocks = (rows.count() + rows.block() - 1) / rows.block();
  const Scratch<double> partial(stream, blocks * K);
  launch(stream, blocks,
         BorderedReduce<K, F>{rows, rows.block(), f, sums, partial.data(), stream.arrivals, out, wide, in});
}

}  // namespace qtrain::device
