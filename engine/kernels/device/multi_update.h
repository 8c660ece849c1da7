// Passes over many tensors on a GPU: a block of threads for each chunk of a set.
//
// The list of sets is part of the kernel's argument. So it needs no memory on the device and no copy that
// would have to be repeated when an address changes, and a recorded launch keeps it. An argument may have
// 32764 bytes (from CUDA 12.1 and compute capability 7.0 on): several hundred sets. More of them take several
// launches.
#pragma once

#include <array>

#include "engine/kernels/device/elementwise.h"
#include "engine/kernels/device/grouped.h"
#include "engine/kernels/tensor_set.h"

namespace qtrain::device {

template <class... Element>
struct ListedSet {
  std::tuple<Element*...> arrays;
  std::int64_t count;
  std::int32_t group;
  std::int32_t first_chunk;  // counted from the first set of this launch

  QTRAIN_HOST_DEVICE bool packed(std::size_t bytes) const {
    return packed(bytes, std::index_sequence_for<Element...>());
  }

 private:
  template <std::size_t... k>
  QTRAIN_HOST_DEVICE bool packed(std::size_t bytes, std::index_sequence<k...>) const {
    return ((reinterpret_cast<std::uintptr_t>(std::get<k>(arrays)) % bytes == 0) && ...);
  }
};

inline constexpr std::size_t short_list_bytes = std::size_t{3} << 10;
inline constexpr std::size_t list_bytes = std::size_t{28} << 10;

// At most `bytes` of sets, one at least.
template <std::size_t bytes, class... Element>
struct SetList {
  static constexpr int capacity = static_cast<int>(bytes / sizeof(ListedSet<Element...>));
  static_assert(capacity > 0);

  std::array<ListedSet<Element...>, static_cast<std::size_t>(capacity)> sets;
  std::int32_t count = 0;
  std::int32_t chunks = 0;

  void add(const TensorSet<Element...>& set) {
    sets[static_cast<std::size_t>(count++)] = {set.arrays, set.count, static_cast<std::int32_t>(set.group),
                                               chunks};
    chunks += static_cast<std::int32_t>((set.count + reduction_block - 1) / reduction_block);
  }
  // The last set that starts at this chunk or before it; sets without elements have none.
  QTRAIN_HOST_DEVICE const ListedSet<Element...>& set_of(std::int64_t chunk) const {
    std::int32_t first = 0;
    std::int32_t last = count - 1;
    while (first < last) {
      const std::int32_t middle = (first + last + 1) / 2;
      if (sets[static_cast<std::size_t>(middle)].first_chunk <= chunk)
        first = middle;
      else
        last = middle - 1;
    }
    return sets[static_cast<std::size_t>(first)];
  }
};

// Calls body(number of elements, address of the first in each array...) for the elements of a chunk.
template <int packet, class Thread, class Body, class... Element>
QTRAIN_HOST_DEVICE void for_chunk(const Thread& t, int threads, const ListedSet<Element...>& set,
                                  std::int64_t chunk, Body&& body) {
  const std::int64_t begin = (chunk - set.first_chunk) * reduction_block;
  const std::int64_t end = begin + reduction_block < set.count ? begin + reduction_block : set.count;
  const auto at = [&](auto size, std::int64_t i) {
    const auto addresses = [&]<std::size_t... k>(std::index_sequence<k...>) {
      body(size, (std::get<k>(set.arrays) + i)...);
    };
    addresses(std::index_sequence_for<Element...>());
  };
  if (set.packed(sizeof(float) * packet)) return for_packets<packet>(t, threads, begin, end, at);
  for (std::int64_t i = begin + t.thread; i < end; i += threads) at(std::integral_constant<int, 1>(), i);
}

template <std::size_t bytes, class F, class... Element>
struct MultiUpdate {
  static constexpr int threads = 256;
  static constexpr int packet = packet_size<std::remove_const_t<Element>...>;
  using Shared = NothingShared;
  using List = SetList<bytes, Element...>;

  F f;
  List list;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    const ListedSet<Element...>& set = list.set_of(t.block);
    F local = f;
    qtrain::detail::prepare_group(local, set.group);
    for_chunk<packet>(t, threads, set, t.block,
                      [&](auto size, Element*... at) { change<size.value>(local, at...); });
  }

 private:
  template <int count>
  QTRAIN_HOST_DEVICE static void change(const F& local, Element*... at) {
    const auto run = [&](Packet<std::remove_const_t<Element>, count>... p) {
      for (int j = 0; j < count; ++j) local(static_cast<Element&>(p.at[j])...);
      (put_back(at, p), ...);
    };
    run(load_packet<count>(static_cast<const std::remove_const_t<Element>*>(at))...);
  }
  template <class T, class Changed>
  QTRAIN_HOST_DEVICE static void put_back(T* at, const Changed& changed) {
    if constexpr (!std::is_const_v<T>) store_packet(at, changed);
  }
};

template <std::size_t bytes, int K, class Combine, class F, class... Element>
struct MultiReduce {
  static constexpr int threads = reduction_threads;
  static constexpr int packet = packet_size<std::remove_const_t<Element>...>;
  using Shared = BlockSums<K>;
  using List = SetList<bytes, Element...>;

  F f;
  double* partial;             // [chunks of all launches][K]
  std::int64_t chunks_before;  // of earlier launches
  std::int64_t chunks;         // of all launches; only the last one knows, and merges; else 0
  std::uint32_t* arrivals;
  float* results;
  List list;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const ListedSet<Element...>& set = list.set_of(t.block);
    F local = f;
    qtrain::detail::prepare_group(local, set.group);
    float sums[K];
    for (int k = 0; k < K; ++k) sums[k] = Combine::identity;
    for_chunk<packet>(t, threads, set, t.block,
                      [&](auto size, Element*... at) { reduce<size.value>(local, sums, at...); });
    for (int k = 0; k < K; ++k) shared.values[k][t.thread] = static_cast<double>(sums[k]);
    combine_threads<Combine>(t, shared);
    if (t.thread < K) partial[(chunks_before + t.block) * K + t.thread] = shared.values[t.thread][0];
    if (chunks > 0 && t.arrive_last(arrivals))
      merge_parts<Combine>(t, shared, partial, K, 1, chunks, results);
  }

 private:
  template <int count>
  QTRAIN_HOST_DEVICE static void reduce(const F& local, float* sums, Element*... at) {
    const auto run = [&](const Packet<std::remove_const_t<Element>, count>&... x) {
      for (int j = 0; j < count; ++j) qtrain::detail::add_terms<Combine>(sums, local(x.at[j]...));
    };
    run(load_packet<count>(static_cast<const std::remove_const_t<Element>*>(at))...);
  }
};

namespace detail {

// Calls run(list, whether it is the last one) for lists of all sets that have elements, with at least one
// list if there is such a set.
template <std::size_t bytes, class... Element, class Run>
void for_lists(const TensorSets<Element...>& sets, Run&& run) {
  using List = SetList<bytes, Element...>;
  std::size_t left = 0;
  for (const TensorSet<Element...>& set : sets) left += set.count > 0 ? 1 : 0;
  List list;
  for (const TensorSet<Element...>& set : sets) {
    if (set.count == 0) continue;
    list.add(set);
    --left;
    if (left > 0 && list.count < List::capacity) continue;
    run(list, left == 0);
    list.count = list.chunks = 0;
  }
}

template <std::size_t bytes, class F, class... Element>
void multi_update(const Stream& stream, const TensorSets<Element...>& sets, const F& f) {
  for_lists<bytes>(sets, [&](const SetList<bytes, Element...>& list, bool) {
    launch(stream, list.chunks, MultiUpdate<bytes, F, Element...>{f, list});
  });
}

template <std::size_t bytes, int K, class Combine, class F, class... Element>
void multi_reduce(const Stream& stream, const TensorSets<Element...>& sets, const F& f, float* results,
                  double* partial) {
  std::int64_t before = 0;
  for_lists<bytes>(sets, [&](const SetList<bytes, Element...>& list, bool last) {
    launch(stream, list.chunks,
           MultiReduce<bytes, K, Combine, F, Element...>{f, partial, before, last ? before + list.chunks : 0,
                                                         stream.arrivals, results, list});
    before += list.chunks;
  });
}

template <class... Element>
bool fits_short_list(const TensorSets<Element...>& sets) {
  return sets.size() <= static_cast<std::size_t>(SetList<short_list_bytes, Element...>::capacity);
}

}  // namespace detail

template <class F, class... Element>
void multi_update(const Stream& stream, const TensorSets<Element...>& sets, const F& f) {
  if (detail::fits_short_list(sets)) return detail::multi_update<short_list_bytes>(stream, sets, f);
  detail::multi_update<list_bytes>(stream, sets, f);
}

// The result of no elements at all.
template <class Combine>
struct NoElements {
  float* results;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t k) const { results[k] = Combine::identity; }
};

template <int K, class Combine, class F, class... Element>
void multi_reduce(const Stream& stream, const TensorSets<Element...>& sets, const F& f, float* results) {
  std::int64_t chunks = 0;
  for (const TensorSet<Element...>& set : sets) chunks += (set.count + reduction_block - 1) / reduction_block;
  if (chunks == 0) return device::for_each(stream, K, NoElements<Combine>{results});
  const Scratch<double> partial(stream, chunks * K);
  if (detail::fits_short_list(sets))
    return detail::multi_reduce<short_list_bytes, K, Combine>(stream, sets, f, results, partial.data());
  detail::multi_reduce<list_bytes, K, Combine>(stream, sets, f, results, partial.data());
}

}  // namespace qtrain::device
