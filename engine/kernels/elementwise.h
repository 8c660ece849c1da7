// The elementwise machinery: scalar functors run over arrays, on every device from the same source.
//
//   map(stream, n, f, out, in...)           out[i] = f(in[i]...)
//   map_reduce<K>(stream, n, f, sums, out, in...)
//                                           {out[i], terms} = f(in[i]...); sums[k] = sum over i of terms[k]
//   reduce<K, Combine>(stream, n, f, results, in...)
//                                           without an array output; Combine: Sum, Maximum or Minimum
//   reduce_each_block<K, Combine>(stream, n, f, results, in...)
//                                           the same for every block of `reduction_block` elements by itself
//   reduce_where<K, Combine>(stream, n, wanted, f, results, in...)
//                                           reduce without the blocks b whose wanted(b) is false
//   for_each(stream, n, f)                  f(i): for indexing of any other kind
//
// A functor is copied to where it runs. If it has a member `void prepare()`, that is called there once before
// the loop: there it reads device scalars (a clipping level, a scale) through pointers, so no value ever
// visits the host.
//
// Order of summation is fixed: blocks of `reduction_block` elements, `lanes` interleaved float32 sums a
// block, the lanes and then the blocks added up in double in their order. Results are the same for any number
// of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/kernels/device/elementwise.h"
#include "engine/kernels/device/grouped.h"
#include "engine/kernels/element.h"
#include "engine/kernels/functor.h"
#include "engine/kernels/parallel.h"

namespace qtrain {

inline constexpr int lanes = 64;

inline std::int64_t reduction_blocks(std::int64_t n) {
  return (n + reduction_block - 1) / reduction_block;
}

namespace detail {

// Functors are taken by value: a copy whose address nobody has stays in registers while `out` is written.
template <class Out, class F, class... In>
void map_block(F f, std::int64_t begin, std::int64_t end, Out* out, const In*... in) {
#pragma omp simd
  for (std::int64_t i = begin; i < end; ++i) store(out[i], f(load(in[i])...));
}

// sums[k][l] += term k of element first + l, for a row of lanes. The loop over k is unrolled by hand: the
// compiler vectorizes only a loop without another one inside.
template <class Combine, class Step, std::size_t... k>
void add_row(Step step, std::int64_t first, int count, float* sums, std::index_sequence<k...>) {
#pragma GCC ivdep
  for (int l = 0; l < count; ++l) {
    const auto t = step(first + l);
    ((sums[k * lanes + static_cast<std::size_t>(l)] =
          Combine::combine(sums[k * lanes + static_cast<std::size_t>(l)], term<static_cast<int>(k)>(t))),
     ...);
  }
}

// The sums of K terms in `lanes` interleaved parts.
template <int K, class Combine>
struct LaneSums {
  alignas(64) float sums[K * lanes];
  LaneSums() { std::fill_n(sums, K * lanes, Combine::identity); }

  // Lane l takes the elements begin + l, begin + l + lanes, ...; step(i) returns the K terms of element i.
  template <class Step>
  void add(std::int64_t begin, std::int64_t end, Step step) {
    constexpr auto each_term = std::make_index_sequence<K>();
    std::int64_t i = begin;
    for (; i + lanes <= end; i += lanes) add_row<Combine>(step, i, lanes, sums, each_term);
    if (i < end) add_row<Combine>(step, i, static_cast<int>(end - i), sums, each_term);
  }
  void total(double* result) const {
    double totals[K];
    for (int k = 0; k < K; ++k) totals[k] = static_cast<double>(Combine::identity);
    for (int l = 0; l < lanes; ++l)  // outside: the chains of the terms then run beside each other
      for (int k = 0; k < K; ++k)
        totals[k] = Combine::combine_blocks(totals[k], static_cast<double>(sums[k * lanes + l]));
    for (int k = 0; k < K; ++k) result[k] = totals[k];
  }
};

// One block of a reduction.
template <int K, class Combine, class Step>
void reduce_block(std::int64_t begin, std::int64_t end, Step step, double* result) {
  LaneSums<K, Combine> sums;
  sums.add(begin, end, step);
  sums.total(result);
}

struct EveryBlock {
  QTRAIN_HOST_DEVICE bool operator()(std::int64_t /*block*/) const { return true; }
};

// partial[K b + k]: term k of block b.
template <int K, class Combine, class Result, class Wanted, class F, class MakeStep>
void partial_results(std::int64_t n, Wanted wanted, F f, Result* partial, MakeStep&& make_step) {
  parallel_for(reduction_blocks(n), 1, [&](std::int64_t first, std::int64_t last) {
    Wanted is_wanted = wanted;
    prepare(is_wanted);
    F local = f;
    prepare(local);
    const auto step = make_step(local);
    for (std::int64_t b = first; b < last; ++b) {
      double results[K];
      const std::int64_t begin = b * reduction_block;
      const std::int64_t end = is_wanted(b) ? std::min(n, begin + reduction_block) : begin;
      reduce_block<K, Combine>(begin, end, step, results);
      for (int k = 0; k < K; ++k) partial[b * K + k] = static_cast<Result>(results[k]);
    }
  });
}

// results[k] from partial[K b + k].
template <int K, class Combine>
void merge_blocks(const double* partial, std::int64_t blocks, float* results) {
  for (int k = 0; k < K; ++k) {
    auto total = static_cast<double>(Combine::identity);
    for (std::int64_t b = 0; b < blocks; ++b) total = Combine::combine_blocks(total, partial[b * K + k]);
    results[k] = static_cast<float>(total);
  }
}

template <int K, class Combine, class Wanted, class F, class MakeStep>
void reduce_blocks(const Stream& stream, std::int64_t n, Wanted wanted, F f, float* results,
                   MakeStep&& make_step) {
  const std::int64_t blocks = reduction_blocks(n);
  const Scratch<double> partial(stream, blocks * K);
  partial_results<K, Combine>(n, wanted, f, partial.data(), make_step);
  merge_blocks<K, Combine>(partial.data(), blocks, results);
}

}  // namespace detail

template <class F, class Out, class... In>
void map(const Stream& stream, std::int64_t n, F f, Out* out, const In*... in) {
  if (on_device(stream)) return device::map_groups(stream, n, {}, f, out, in...);
  parallel_for(n, map_grain, [&](std::int64_t begin, std::int64_t end) {
    F local = f;
    detail::prepare(local);
    detail::map_block(local, begin, end, out, in...);
  });
}

template <int K, class F, class Out, class... In>
void map_reduce(const Stream& stream, std::int64_t n, F f, float* sums, Out* out, const In*... in) {
  if (on_device(stream)) return device::map_reduce_groups<K>(stream, n, {}, f, sums, out, in...);
  detail::reduce_blocks<K, Sum>(stream, n, detail::EveryBlock{}, f, sums, [&](const F& local) {
    return [local, out, in...](std::int64_t i) {
      const Mapped<K> mapped = local(load(in[i])...);
      store(out[i], mapped.value);
      return mapped.terms;
    };
  });
}

// f returns Terms<K>.
template <int K, class Combine, class F, class... In>
void reduce(const Stream& stream, std::int64_t n, F f, float* results, const In*... in) {
  if (on_device(stream)) return device::reduce_groups<K, Combine>(stream, n, {}, f, results, in...);
  detail::reduce_blocks<K, Combine>(stream, n, detail::EveryBlock{}, f, results, [&](const F& local) {
    return [local, in...](std::int64_t i) { return local(load(in[i])...); };
  });
}

template <int K, class Combine, class Wanted, class F, class... In>
void reduce_where(const Stream& stream, std::int64_t n, Wanted wanted, F f, float* results, const In*... in) {
  if (on_device(stream)) return device::reduce_where<K, Combine>(stream, n, wanted, f, results, in...);
  detail::reduce_blocks<K, Combine>(stream, n, wanted, f, results, [&](const F& local) {
    return [local, in...](std::int64_t i) { return local(load(in[i])...); };
  });
}

// results: K floats for each of the reduction_blocks(n) blocks.
template <int K, class Combine, class F, class... In>
void reduce_each_block(const Stream& stream, std::int64_t n, F f, float* results, const In*... in) {
  if (on_device(stream)) return device::reduce_each_block<K, Combine>(stream, n, f, results, in...);
  detail::partial_results<K, Combine>(n, detail::EveryBlock{}, f, results, [&](const F& local) {
    return [local, in...](std::int64_t i) { return local(load(in[i])...); };
  });
}

template <class F>
void for_each(const Stream& stream, std::int64_t n, F f, std::int64_t grain = map_grain) {
  if (on_device(stream)) return device::for_each(stream, n, f);
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    F local = f;
    detail::prepare(local);
    for (std::int64_t i = begin; i < end; ++i) local(i);
  });
}

}  // namespace qtrain
