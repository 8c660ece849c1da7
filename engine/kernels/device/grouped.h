// Maps and reductions over groups on a GPU; one group is the plain machinery. A block of threads works on one
// part of a group, so that it prepares its functor once.
#pragma once

#include <type_traits>

#include "engine/kernels/device/block_sums.h"
#include "engine/kernels/device/packet.h"
#include "engine/kernels/device/parts.h"
#include "engine/kernels/parallel.h"

namespace qtrain::device {

// Calls body(number of elements, first element) for all elements begin..end-1: packets while they fit, then
// single elements. The number is a std::integral_constant, so that bodies unroll.
template <int packet, class Thread, class Body>
QTRAIN_HOST_DEVICE void for_packets(const Thread& t, std::int64_t threads, std::int64_t begin,
                                    std::int64_t end, Body&& body) {
  const std::int64_t whole = begin + (end - begin) / packet * packet;
  for (std::int64_t i = begin + t.thread * packet; i < whole; i += threads * packet)
    body(std::integral_constant<int, packet>(), i);
  for (std::int64_t i = whole + t.thread; i < end; i += threads) body(std::integral_constant<int, 1>(), i);
}

template <class F, class Out, class... In>
struct GroupMap {
  static constexpr int threads = 256;
  static constexpr int packet = packet_size<Out, In...>;
  using Shared = NothingShared;

  Parts parts;
  F f;
  Out* out;
  Arrays<const In...> in;
  bool packed;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    const std::int64_t group = parts.group(t.block);
    const std::int64_t begin = parts.begin(t.block);
    const std::int64_t end = parts.end(t.block);
    F local = f;
    qtrain::detail::prepare_group(local, group);
    if (packed)
      for_packets<packet>(t, threads, begin, end,
                          [&](auto size, std::int64_t e) { map<size.value>(local, parts.place(group, e)); });
    else
      for (std::int64_t e = begin + t.thread; e < end; e += threads) map<1>(local, parts.place(group, e));
  }

 private:
  template <int count>
  QTRAIN_HOST_DEVICE void map(const F& local, std::int64_t i) const {
    in.at(i, [&](const In*... from) {
      const auto run = [&](const Packet<In, count>&... x) {
        Packet<Out, count> y;
        for (int j = 0; j < count; ++j) store(y.at[j], local(load(x.at[j])...));
        store_packet(out + i, y);
      };
      run(load_packet<count>(from)...);
    });
  }
};

// What a reduction does with its elements.
struct EveryPart {
  QTRAIN_HOST_DEVICE bool operator()(std::int64_t /*part*/) const { return true; }
};
enum class Results { of_groups, of_parts };  // results[k * groups + group], or results[part * K + k]

// Out is void where nothing is written but the results.
template <int K, class Combine, Results wanted_results, class Wanted, class F, class Out, class... In>
struct GroupReduce {
  static constexpr int threads = reduction_threads;
  static constexpr bool writes = !std::is_void_v<Out>;
  static constexpr int packet = packet_size<std::conditional_t<writes, Out, float>, In...>;
  using Shared = BlockSums<K>;

  Parts parts;
  Wanted wanted;
  F f;
  float* results;
  double* partial;          // [parts][K]; unused where parts are results
  std::uint32_t* arrivals;  // likewise
  Out* out;
  Arrays<const In...> in;
  bool packed;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const std::int64_t group = parts.group(t.block);
    const std::int64_t begin = parts.begin(t.block);
    Wanted is_wanted = wanted;
    qtrain::detail::prepare(is_wanted);
    const std::int64_t end = is_wanted(t.block) ? parts.end(t.block) : begin;
    F local = f;
    qtrain::detail::prepare_group(local, group);
    float sums[K];
    for (int k = 0; k < K; ++k) sums[k] = Combine::identity;
    if (packed)
      for_packets<packet>(t, threads, begin, end, [&](auto size, std::int64_t e) {
        reduce<size.value>(local, parts.place(group, e), sums);
      });
    else
      for (std::int64_t e = begin + t.thread; e < end; e += threads)
        reduce<1>(local, parts.place(group, e), sums);
    for (int k = 0; k < K; ++k) shared.values[k][t.thread] = static_cast<double>(sums[k]);
    combine_threads<Combine>(t, shared);
    if constexpr (wanted_results == Results::of_parts) {
      if (t.thread < K) results[t.block * K + t.thread] = static_cast<float>(shared.values[t.thread][0]);
    } else {
      if (parts.per_group() == 1) {
        if (t.thread < K)
          results[t.thread * parts.groups() + group] = static_cast<float>(shared.values[t.thread][0]);
        return;
      }
      if (t.thread < K) partial[t.block * K + t.thread] = shared.values[t.thread][0];
      if (t.arrive_last(arrivals))
        merge_parts<Combine>(t, shared, partial, K, parts.groups(), parts.per_group(), results);
    }
  }

 private:
  template <int count>
  QTRAIN_HOST_DEVICE void reduce(const F& local, std::int64_t i, float* sums) const {
    in.at(i, [&](const In*... from) {
      const auto run = [&](const Packet<In, count>&... x) {
        if constexpr (writes) {
          Packet<Out, count> y;
          for (int j = 0; j < count; ++j) {
            const Mapped<K> mapped = local(load(x.at[j])...);
            store(y.at[j], mapped.value);
            qtrain::detail::add_terms<Combine>(sums, mapped.terms);
          }
          store_packet(out + i, y);
        } else {
          for (int j = 0; j < count; ++j) qtrain::detail::add_terms<Combine>(sums, local(load(x.at[j])...));
        }
      };
      run(load_packet<count>(from)...);
    });
  }
};

template <class F, class Out, class... In>
void map_groups(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, Out* out,
                const In*... in) {
  using Kernel = GroupMap<F, Out, In...>;
  if (n == 0) return;
  const Arrays<const In...> arrays(in...);
  const Parts parts(n, grouping);
  const bool packed = parts.packed(Kernel::packet) && is_aligned<Kernel::packet>(out) &&
                      (is_aligned<Kernel::packet>(in) && ...);
  launch(stream, parts.count(), Kernel{parts, f, out, arrays, packed});
}

namespace detail {

template <int K, class Combine, Results wanted_results, class Wanted, class F, class Out, class... In>
void reduce(const Stream& stream, std::int64_t n, const Grouping& grouping, Wanted wanted, const F& f,
            float* results, Out* out, const In*... in) {
  using Kernel = GroupReduce<K, Combine, wanted_results, Wanted, F, Out, In...>;
  const Parts parts(n, grouping);
  bool packed = parts.packed(Kernel::packet) && (is_aligned<Kernel::packet>(in) && ...);
  if constexpr (Kernel::writes) packed = packed && is_aligned<Kernel::packet>(out);
  const bool merges = wanted_results == Results::of_groups && parts.per_group() > 1;
  const Scratch<double> partial(stream, merges ? parts.count() * K : 1);
  launch(stream, parts.count(),
         Kernel{parts, wanted, f, results, partial.data(), stream.arrivals, out, Arrays<const In...>(in...),
                packed});
}

}  // namespace detail

template <int K, class F, class Out, class... In>
void map_reduce_groups(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f,
                       float* sums, Out* out, const In*... in) {
  detail::reduce<K, Sum, Results::of_groups>(stream, n, grouping, EveryPart(), f, sums, out, in...);
}

template <int K, class Combine, class F, class... In>
void reduce_groups(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, float* results,
                   const In*... in) {
  detail::reduce<K, Combine, Results::of_groups>(stream, n, grouping, EveryPart(), f, results,
                                                 static_cast<void*>(nullptr), in...);
}

// Without the parts p of which wanted(p) is false.
template <int K, class Combine, class Wanted, class F, class... In>
void reduce_where(const Stream& stream, std::int64_t n, const Wanted& wanted, const F& f, float* results,
                  const In*... in) {
  detail::reduce<K, Combine, Results::of_groups>(stream, n, {}, wanted, f, results,
                                                 static_cast<void*>(nullptr), in...);
}

template <int K, class Combine, class F, class... In>
void reduce_each_block(const Stream& stream, std::int64_t n, const F& f, float* results, const In*... in) {
  detail::reduce<K, Combine, Results::of_parts>(stream, n, {}, EveryPart(), f, results,
                                                static_cast<void*>(nullptr), in...);
}

}  // namespace qtrain::device
