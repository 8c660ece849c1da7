// The elementwise machinery where elements fall into groups with parameters or statistics of their own: the
// output channels of a weight, the samples of a batch, ranges of channels.
//
//   map_groups(stream, n, grouping, f, out, in...)                  as map
//   map_reduce_groups<K>(stream, n, grouping, f, sums, out, in...)  as map_reduce; sums[k * groups + group]
//   reduce_groups<K, Combine>(stream, n, grouping, f, results, in...)  as reduce; results likewise
//
// `void prepare(std::int64_t group)` of a functor reads what belongs to one group, and is called again for
// the next one; `void prepare()` still works where all groups share it. One group is the plain machinery: the
// same order of summation, the same speed.
#pragma once

#include <vector>

#include "engine/kernels/elementwise.h"

namespace qtrain {

namespace detail {

// The parts that a grouped kernel is cut into; none depends on the number of threads.
struct Parts {
  std::int64_t span, per_span, length;  // elements of a span; parts in it; elements of a part but the last
  std::int64_t begin(std::int64_t part) const { return part / per_span * span + part % per_span * length; }
  std::int64_t end(std::int64_t part) const {
    return std::min(begin(part) + length, (part / per_span + 1) * span);
  }
};

// Interleaved groups are prepared all at once, so their parts are longer, and whole turns.
inline Parts parts_of(std::int64_t n, const Grouping& g) {
  const std::int64_t span = n / g.outer;
  std::int64_t length = reduction_block;
  if (g.inner > 1) {
    const std::int64_t turn = g.inner * g.run;
    length = std::max<std::int64_t>(1, 16 * reduction_block / turn) * turn;
  }
  return {span, (span + length - 1) / length, length};
}

// Functors for the groups of one span.
template <class F>
class Prepared {
 public:
  Prepared(const F& f, const Grouping& grouping)
      : grouping_(grouping), functors_(static_cast<std::size_t>(grouping.inner), f) {}
  const std::vector<F>& of_span(std::int64_t span) {
    if (span != span_)
      for (std::size_t i = 0; i < functors_.size(); ++i)
        prepare_group(functors_[i], span * grouping_.inner + static_cast<std::int64_t>(i));
    span_ = span;
    return functors_;
  }

 private:
  Grouping grouping_;
  std::vector<F> functors_;
  std::int64_t span_ = -1;
};

// Calls body(functor, group within the span, begin, end) for the runs of a part of interleaved groups.
template <class F, class Body>
void for_runs(const std::vector<F>& functors, const Grouping& g, std::int64_t begin, std::int64_t end,
              Body&& body) {
  std::size_t group = 0;
  for (std::int64_t i = begin; i < end; i += g.run) {
    body(functors[group], group, i, std::min(i + g.run, end));
    group = group + 1 == functors.size() ? 0 : group + 1;
  }
}

template <class F, class Part>
void for_parts(std::int64_t n, const Grouping& grouping, const F& f, Part&& part) {
  if (n == 0) return;
  const Parts parts = parts_of(n, grouping);
  const std::int64_t grain = std::max<std::int64_t>(1, map_grain / std::min(parts.length, parts.span));
  parallel_for(grouping.outer * parts.per_span, grain, [&](std::int64_t first, std::int64_t last) {
    Prepared<F> prepared(f, grouping);
    for (std::int64_t p = first; p < last; ++p)
      part(prepared.of_span(p / parts.per_span), p, parts.begin(p), parts.end(p));
  });
}

// Calls run(functor, part, group within the span, begin, end) for every run of one group's elements in a
// part.
template <class F, class Run>
void for_group_runs(std::int64_t n, const Grouping& grouping, const F& f, Run&& run) {
  for_parts(n, grouping, f,
            [&](const std::vector<F>& functors, std::int64_t part, std::int64_t begin, std::int64_t end) {
              if (grouping.inner == 1) return run(functors[0], part, std::size_t{0}, begin, end);
              for_runs(functors, grouping, begin, end,
                       [&](const F& functor, std::size_t group, std::int64_t from, std::int64_t to) {
                         run(functor, part, group, from, to);
                       });
            });
}

template <class Combine, std::size_t... k, int K>
void combine_terms(double* results, Terms<K> terms, std::index_sequence<k...>) {
  ((results[k] = Combine::combine_blocks(results[k], static_cast<double>(term<static_cast<int>(k)>(terms)))),
   ...);
}

// results[k * groups + group] for k < K: combine_run(functor, begin, end, double* into) combines what it
// finds in a run of one group's elements with the K values at `into`, the identity at first.
template <int K, class Combine, class F, class CombineRun>
void combine_runs(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, float* results,
                  CombineRun&& combine_run) {
  const Parts parts = parts_of(n, grouping);
  const std::int64_t values = K * grouping.inner;  // of one part: [inner][K]
  const Scratch<double> partial(stream, grouping.outer * parts.per_span * values);
  std::fill_n(partial.data(), grouping.outer * parts.per_span * values,
              static_cast<double>(Combine::identity));
  for_group_runs(
      n, grouping, f,
      [&](const F& functor, std::int64_t part, std::size_t group, std::int64_t begin, std::int64_t end) {
        combine_run(functor, begin, end,
                    partial.data() + part * values + group * static_cast<std::size_t>(K));
      });
  for (std::int64_t group = 0; group < grouping.groups(); ++group)
    for (std::int64_t k = 0; k < K; ++k) {
      auto total = static_cast<double>(Combine::identity);
      for (std::int64_t b = 0; b < parts.per_span; ++b)
        total = Combine::combine_blocks(
            total, partial.data()[(group / grouping.inner * parts.per_span + b) * values +
                                  group % grouping.inner * K + k]);
      results[k * grouping.groups() + group] = static_cast<float>(total);
    }
}

// The same from make_step(functor)(i), the K terms of element i.
template <int K, class Combine, class F, class MakeStep>
void reduce_parts(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, float* results,
                  MakeStep&& make_step) {
  combine_runs<K, Combine>(stream, n, grouping, f, results,
                           [&](const F& functor, std::int64_t begin, std::int64_t end, double* into) {
                             const auto step = make_step(functor);
                             if (grouping.inner == 1) return reduce_block<K, Combine>(begin, end, step, into);
                             for (std::int64_t i = begin; i < end; ++i)
                               combine_terms<Combine>(into, step(i), std::make_index_sequence<K>());
                           });
}

}  // namespace detail

template <class F, class Out, class... In>
void map_groups(const Stream& stream, std::int64_t n, const Grouping& grouping, F f, Out* out,
                const In*... in) {
  if (on_device(stream)) return device::map_groups(stream, n, grouping, f, out, in...);
  detail::for_group_runs(
      n, grouping, f, [&](const F& functor, std::int64_t, std::size_t, std::int64_t begin, std::int64_t end) {
        detail::map_block(functor, begin, end, out, in...);
      });
}

template <int K, class F, class Out, class... In>
void map_reduce_groups(const Stream& stream, std::int64_t n, const Grouping& grouping, F f, float* sums,
                       Out* out, const In*... in) {
  if (on_device(stream)) return device::map_reduce_groups<K>(stream, n, grouping, f, sums, out, in...);
  detail::reduce_parts<K, Sum>(stream, n, grouping, f, sums, [&](const F& local) {
    return [local, out, in...](std::int64_t i) {
      const Mapped<K> mapped = local(load(in[i])...);
      store(out[i], mapped.value);
      return mapped.terms;
    };
  });
}

// f returns Terms<K>.
template <int K, class Combine, class F, class... In>
void reduce_groups(const Stream& stream, std::int64_t n, const Grouping& grouping, F f, float* results,
                   const In*... in) {
  if (on_device(stream)) return device::reduce_groups<K, Combine>(stream, n, grouping, f, results, in...);
  detail::reduce_parts<K, Combine>(stream, n, grouping, f, results, [&](const F& local) {
    return [local, in...](std::int64_t i) { return local(load(in[i])...); };
  });
}

}  // namespace qtrain
