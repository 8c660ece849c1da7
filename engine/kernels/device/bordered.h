// The machinery between images and images with a border on a GPU: a block of threads takes some rows.
#pragma once

#include "engine/kernels/bordered_rows.h"
#include "engine/kernels/device/block_sums.h"
#include "engine/kernels/device/packet.h"
#include "engine/kernels/element.h"

namespace qtrain::device {

template <class F, class Border, class Wide, class In>
struct BorderedMap {
  static constexpr int threads = 256;
  using Shared = NothingShared;

  BorderedRows rows;
  F f;
  Border border;
  Wide* wide;
  const In* in;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    F local = f;
    qtrain::detail::prepare_group(local, 0);
    Wide of_border;
    store(of_border, border(local));
    rows.visit(
        t.block,
        [&](std::int64_t at, std::int64_t from, std::int64_t n) {
          for (std::int64_t i = t.thread; i < n; i += threads) store(wide[at + i], local(load(in[from + i])));
        },
        [&](std::int64_t at, std::int64_t n) {
          for (std::int64_t i = t.thread; i < n; i += threads) wide[at + i] = of_border;
        });
  }
};

template <class F, class Out, class Wide, class... In>
struct InsideMap {
  static constexpr int threads = 256;
  using Shared = NothingShared;

  BorderedRows rows;
  F f;
  Out* out;
  const Wide* wide;
  Arrays<const In...> in;  // none or one

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    F local = f;
    qtrain::detail::prepare_group(local, 0);
    rows.visit(
        t.block,
        [&](std::int64_t at, std::int64_t from, std::int64_t n) {
          for (std::int64_t i = t.thread; i < n; i += threads)
            in.at(from + i, [&](const In*... inside) {
              store(out[from + i], local(load(*inside)..., load(wide[at + i])));
            });
        },
        [](std::int64_t, std::int64_t) {});
  }
};

template <int K, class F, class Out, class Wide, class In>
struct BorderedReduce {
  static constexpr int threads = reduction_threads;
  using Shared = BlockSums<K>;

  BorderedRows rows;
  std::int64_t rows_of_block;
  F f;
  float* sums;
  double* partial;  // [blocks][K]
  std::uint32_t* arrivals;
  Out* out;
  const Wide* wide;
  const In* in;

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
              const Mapped<K> mapped = local(load(in[from + i]), load(wide[at + i]));
              store(out[from + i], mapped.value);
              qtrain::detail::add_terms<Sum>(own, mapped.terms);
            }
          },
          [&](std::int64_t at, std::int64_t n) {
            for (std::int64_t i = t.thread; i < n; i += threads)
              qtrain::detail::add_terms<Sum>(own, local(0.0F, load(wide[at + i])).terms);
          });
    for (int k = 0; k < K; ++k) shared.values[k][t.thread] = static_cast<double>(own[k]);
    combine_threads<Sum>(t, shared);
    if (t.thread < K) partial[t.block * K + t.thread] = shared.values[t.thread][0];
    if (t.arrive_last(arrivals)) merge_parts<Sum>(t, shared, partial, K, 1, t.blocks, sums);
  }
};

template <class F, class Border, class Wide, class In>
void map_bordered(const Stream& stream, const BorderedRows& rows, const F& f, const Border& border,
                  Wide* wide, const In* in) {
  launch(stream, rows.count(), BorderedMap<F, Border, Wide, In>{rows, f, border, wide, in});
}

template <class F, class Out, class Wide, class... In>
void map_inside(const Stream& stream, const BorderedRows& rows, const F& f, Out* out, const Wide* wide,
                const In*... in) {
  launch(stream, rows.count(),
         InsideMap<F, Out, Wide, In...>{rows, f, out, wide, Arrays<const In...>(in...)});
}

template <int K, class F, class Out, class Wide, class In>
void map_reduce_bordered(const Stream& stream, const BorderedRows& rows, const F& f, float* sums, Out* out,
                         const Wide* wide, const In* in) {
  const std::int64_t blocks = (rows.count() + rows.block() - 1) / rows.block();
  const Scratch<double> partial(stream, blocks * K);
  launch(stream, blocks,
         BorderedReduce<K, F, Out, Wide, In>{rows, rows.block(), f, sums, partial.data(), stream.arrivals,
                                             out, wide, in});
}

}  // namespace qtrain::device
