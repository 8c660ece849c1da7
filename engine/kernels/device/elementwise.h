// One thread for each index, and updates of several arrays, on a GPU. Maps and reductions are in grouped.h.
#pragma once

#include "engine/kernels/device/packet.h"
#include "engine/kernels/device/thread.h"
#include "engine/kernels/functor.h"

namespace qtrain::device {

template <class F>
struct ForEach {
  static constexpr int threads = 128;
  using Shared = NothingShared;

  std::int64_t n;
  F f;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    const std::int64_t i = t.block * threads + t.thread;
    if (i >= n) return;
    F local = f;
    qtrain::detail::prepare(local);
    local(i);
  }
};

template <class F>
void for_each(const Stream& stream, std::int64_t n, const F& f) {
  using Kernel = ForEach<F>;
  launch(stream, (n + Kernel::threads - 1) / Kernel::threads, Kernel{n, f});
}

// f(a, b, ...) with references to element i of each array; what const arrays hold is only read.
template <class F, class... Element>
struct Update {
  static constexpr int threads = 256;
  static constexpr int packet = packet_size<std::remove_const_t<Element>...>;
  static constexpr std::int64_t turn =
      std::int64_t{threads} * packet;             // elements that all threads take at once
  static constexpr std::int64_t part = 4 * turn;  // of a block
  using Shared = NothingShared;

  std::int64_t n;
  F f;
  Arrays<Element...> arrays;
  bool packed;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    F local = f;
    qtrain::detail::prepare(local);
    const std::int64_t begin = t.block * part;
    const std::int64_t end = begin + part < n ? begin + part : n;
    const std::int64_t whole = packed ? begin + (end - begin) / packet * packet : begin;
    for (std::int64_t i = begin + t.thread * packet; i < whole; i += turn) run<packet>(local, i);
    for (std::int64_t i = whole + t.thread; i < end; i += threads) run<1>(local, i);
  }

 private:
  template <int count>
  QTRAIN_HOST_DEVICE void run(const F& local, std::int64_t i) const {
    arrays.at(i, [&](Element*... at) {
      const auto change = [&](Packet<std::remove_const_t<Element>, count>... p) {
        for (int j = 0; j < count; ++j) local(static_cast<Element&>(p.at[j])...);
        (put_back<Element, count>(at, p), ...);
      };
      change(load_packet<count>(static_cast<const std::remove_const_t<Element>*>(at))...);
    });
  }
  template <class T, int count>
  QTRAIN_HOST_DEVICE static void put_back(T* at, const Packet<std::remove_const_t<T>, count>& changed) {
    if constexpr (!std::is_const_v<T>) store_packet(at, changed);
  }
};

template <class F, class... Element>
void update(const Stream& stream, std::int64_t n, const F& f, Element*... arrays) {
  using Kernel = Update<F, Element...>;
  const Arrays<Element...> all(arrays...);
  const bool packed = (is_aligned<Kernel::packet>(arrays) && ...);
  launch(stream, (n + Kernel::part - 1) / Kernel::part, Kernel{n, f, all, packed});
}

// A block of threads for each block of elements, and nothing to do for those that aren't wanted.
template <class Wanted, class F, class... Element>
struct UpdateWhere {
  static constexpr int threads = 256;
  using Shared = NothingShared;

  std::int64_t n;
  Wanted wanted;
  F f;
  Arrays<Element...> arrays;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared&) const {
    Wanted is_wanted = wanted;
    qtrain::detail::prepare(is_wanted);
    if (!is_wanted(t.block)) return;
    F local = f;
    qtrain::detail::prepare(local);
    const std::int64_t begin = t.block * reduction_block;
    const std::int64_t end = begin + reduction_block < n ? begin + reduction_block : n;
    for (std::int64_t i = begin + t.thread; i < end; i += threads)
      arrays.at(i, [&](Element*... at) { local(*at...); });
  }
};

template <class Wanted, class F, class... Element>
void update_where(const Stream& stream, std::int64_t n, const Wanted& wanted, const F& f,
                  Element*... arrays) {
  launch(stream, (n + reduction_block - 1) / reduction_block,
         UpdateWhere<Wanted, F, Element...>{n, wanted, f, Arrays<Element...>(arrays...)});
}

}  // namespace qtrain::device
