// The elementwise machinery between images and the same images with a border of zeros around them, which are
// never stored: `wide` arrays have the border, others don't. Both are channels-last, so a row of an image is
// one run of memory, and functors run over rows.
//
//   map_bordered(stream, rows, f, wide, in)      wide = f(in) inside, f(0) in the border
//   fill_border(stream, rows, value, wide, in)   wide = in inside, value in the border
//   map_inside(stream, rows, f, out, wide)       out = f(wide) inside
//   map_inside(stream, rows, f, out, wide, in)   out = f(in, wide) inside
//   map_reduce_bordered<K>(stream, rows, f, sums, out, wide, in)
//                                                {out, terms} = f(in, wide) inside; in the border the terms
//                                                are those of f(0, wide); sums[k] = sum of terms[k] over both
//
// Where there may be no border, rows may be NoBorder:
//
//   map_around(stream, rows, n, grouping, f, wide, in)
//                                                map_bordered(), or map_groups() of n elements
//   map_reduce_inside<K>(stream, rows, n, grouping, f, sums, out, wide, in)
//                                                map_reduce_bordered(), or map_reduce_groups(); with K = 0 f
//                                                returns no terms
//
// Arrays are of float or BFloat16. Functors are those of grouped.h, with one group. Results are the same for
// any number of threads: a block of a reduction is a number of whole rows.
#pragma once

#include "engine/kernels/bordered_rows.h"
#include "engine/kernels/device/bordered.h"
#include "engine/kernels/grouped.h"
#include "engine/kernels/scalar_functors.h"

namespace qtrain {

namespace detail {

struct ValueAtZero {
  template <class F>
  QTRAIN_HOST_DEVICE float operator()(const F& f) const {
    return f(0.0F);
  }
};
struct Constant {
  float value;
  template <class F>
  QTRAIN_HOST_DEVICE float operator()(const F& /*f*/) const {
    return value;
  }
};

// map_block() that asks a little ahead for the memory it writes: a store to a line that isn't cached waits
// for it. Writes of large images take a sixth less time; asking for what is read as well gains nothing.
template <class F, class Out, class... In>
void map_row(F f, std::int64_t n, Out* out, const In*... in) {
  constexpr std::int64_t ahead = 256;  // elements
  constexpr std::int64_t line = 64 / sizeof(Out);
  for (std::int64_t i = 0; i < n; i += ahead) {
    const std::int64_t end = std::min(i + ahead, n);
    for (std::int64_t j = i; j < end; j += line) __builtin_prefetch(out + j + ahead, 1);
    map_block(f, i, end, out, in...);
  }
}

// {out, terms} = f(in, wide) of some neighbouring elements inside; adds the terms.
template <int K, class F, class Out, class Wide, class In>
void add_inside(LaneSums<K, Sum>& sums, F f, std::int64_t n, Out* out, const Wide* wide, const In* in) {
  sums.add(0, n, [f, out, wide, in](std::int64_t i) {
    const Mapped<K> mapped = f(load(in[i]), load(wide[i]));
    store(out[i], mapped.value);
    return mapped.terms;
  });
}
// Adds the terms of f(0, wide) in the border. The zeros are read like any input, by the same loop: of a
// constant the compiler would move what it can ahead of the loop, leave branches on that in it, and not
// vectorize it.
template <int K, class F, class Wide>
void add_around(LaneSums<K, Sum>& sums, F f, std::int64_t n, const Wide* wide) {
  constexpr std::int64_t piece = std::int64_t{4} * lanes;
  static constexpr float zeros[piece] = {};
  float unused[piece];
  for (std::int64_t i = 0; i < n; i += piece)
    add_inside(sums, f, std::min(piece, n - i), unused, wide + i, zeros);
}

}  // namespace detail

// border(f) is what the border gets.
template <class F, class Border, class Wide, class In>
void map_bordered(const Stream& stream, const BorderedRows& rows, F f, Border border, Wide* wide,
                  const In* in) {
  if (on_device(stream)) return device::map_bordered(stream, rows, f, border, wide, in);
  parallel_for(rows.count(), rows.grain(), [&](std::int64_t begin, std::int64_t end) {
    F local = f;
    detail::prepare_group(local, 0);
    Wide of_border;
    store(of_border, border(local));
    for (std::int64_t row = begin; row < end; ++row)
      rows.visit(
          row,
          [&](std::int64_t at, std::int64_t from, std::int64_t n) {
            detail::map_row(local, n, wide + at, in + from);
          },
          [&](std::int64_t at, std::int64_t n) { std::fill_n(wide + at, n, of_border); });
  });
}

template <class F, class Wide, class In>
void map_bordered(const Stream& stream, const BorderedRows& rows, F f, Wide* wide, const In* in) {
  map_bordered(stream, rows, f, detail::ValueAtZero(), wide, in);
}
template <class T>
void fill_border(const Stream& stream, const BorderedRows& rows, float value, T* wide, const T* in) {
  map_bordered(stream, rows, Copied(), detail::Constant{value}, wide, in);
}

template <class F, class Out, class Wide, class... In>
void map_inside(const Stream& stream, const BorderedRows& rows, F f, Out* out, const Wide* wide,
                const In*... in) {
  if (on_device(stream)) return device::map_inside(stream, rows, f, out, wide, in...);
  parallel_for(rows.count(), rows.grain(), [&](std::int64_t begin, std::int64_t end) {
    F local = f;
    detail::prepare_group(local, 0);
    for (std::int64_t row = begin; row < end; ++row)
      rows.visit(
          row,
          [&](std::int64_t at, std::int64_t from, std::int64_t n) {
            detail::map_row(local, n, out + from, (in + from)..., wide + at);
          },
          [](std::int64_t, std::int64_t) {});
  });
}

template <int K, class F, class Out, class Wide, class In>
void map_reduce_bordered(const Stream& stream, const BorderedRows& rows, F f, float* sums, Out* out,
                         const Wide* wide, const In* in) {
  if (on_device(stream)) return device::map_reduce_bordered<K>(stream, rows, f, sums, out, wide, in);
  const std::int64_t blocks = (rows.count() + rows.block() - 1) / rows.block();
  const Scratch<double> partial(stream, blocks * K);
  parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    F local = f;
    detail::prepare_group(local, 0);
    for (std::int64_t b = first; b < last; ++b) {
      detail::LaneSums<K, Sum> lane_sums;
      for (std::int64_t row = b * rows.block(); row < std::min(rows.count(), (b + 1) * rows.block()); ++row)
        rows.visit(
            row,
            [&](std::int64_t at, std::int64_t from, std::int64_t n) {
              detail::add_inside(lane_sums, local, n, out + from, wide + at, in + from);
            },
            [&](std::int64_t at, std::int64_t n) { detail::add_around(lane_sums, local, n, wide + at); });
      lane_sums.total(partial.data() + b * K);
    }
  });
  detail::merge_blocks<K, Sum>(partial.data(), blocks, sums);
}

template <class Rows, class F, class Wide, class In>
void map_around(const Stream& stream, const Rows& rows, [[maybe_unused]] std::int64_t n,
                [[maybe_unused]] const Grouping& grouping, F f, Wide* wide, const In* in) {
  if constexpr (has_border<Rows>)
    map_bordered(stream, rows, f, wide, in);
  else
    map_groups(stream, n, grouping, f, wide, in);
}

template <int K, class Rows, class F, class Out, class Wide, class In>
void map_reduce_inside(const Stream& stream, const Rows& rows, [[maybe_unused]] std::int64_t n,
                       [[maybe_unused]] const Grouping& grouping, F f, [[maybe_unused]] float* sums, Out* out,
                       const Wide* wide, const In* in) {
  if constexpr (has_border<Rows> && K == 0)
    map_inside(stream, rows, f, out, wide, in);
  else if constexpr (has_border<Rows>)
    map_reduce_bordered<K>(stream, rows, f, sums, out, wide, in);
  else if constexpr (K == 0)
    map_groups(stream, n, grouping, f, out, in, wide);
  else
    map_reduce_groups<K>(stream, n, grouping, f, sums, out, in, wide);
}

}  // namespace qtrain
