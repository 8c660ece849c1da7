// Rounding to levels with codes, and its sums, on a GPU (see engine/kernels/codes.h). The tables of a group
// lie in shared memory; a thread keeps sums by digit in registers, where a histogram by level would not fit.
#pragma once

#include "engine/kernels/device/block_sums.h"
#include "engine/kernels/device/parts.h"
#include "engine/kernels/levels.h"
#include "engine/kernels/parallel.h"

namespace qtrain::device {

template <int bits, class F, bool sums_up>
struct Codes {
  static constexpr int threads = reduction_threads;
  static constexpr int terms = code_sums(bits);
  static constexpr int batch = 4;  // sums that a block adds up at a time
  struct Shared {
    alignas(F) unsigned char functor[sizeof(F)];
    BlockSums<batch> sums;
  };

  Parts parts;
  F f;
  float* sums;
  double* partial;  // [parts][terms]
  std::uint32_t* arrivals;
  float* out;
  const float* in;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const std::int64_t group = parts.group(t.block);
    F& table = *reinterpret_cast<F*>(shared.functor);
    if (t.thread == 0) {
      table = f;
      qtrain::detail::prepare_group(table, group);
    }
    t.sync();
    float with_digit[bits]{};
    std::int32_t with_pair[pair_count(bits)]{};
    float total = 0;
    for (std::int64_t e = parts.begin(t.block) + t.thread; e < parts.end(t.block); e += threads) {
      const std::int64_t i = parts.place(group, e);
      const float x = in[i];
      const std::int32_t level = qtrain::detail::level_of<bits>(table, x);
      out[i] = qtrain::detail::value_at(table, level, x);
      if constexpr (sums_up) {
        const std::int32_t code = table.codes[level];
        total += x;
        for (int j = 0; j < bits; ++j) {
          with_digit[j] += (code >> j & 1) != 0 ? x : 0.0F;
          for (int k = j; k < bits; ++k) with_pair[pair_position(bits, j, k)] += code >> j & code >> k & 1;
        }
      }
    }
    if constexpr (sums_up) {
      // In the order of codes.h: pairs, digits, total.
      const auto of_thread = [&](int m) {
        double value = static_cast<double>(total);
        for (int p = 0; p < pair_count(bits); ++p) value = m == p ? static_cast<double>(with_pair[p]) : value;
        for (int j = 0; j < bits; ++j)
          value = m == pair_count(bits) + j ? static_cast<double>(with_digit[j]) : value;
        return value;
      };
      for (int first = 0; first < terms; first += batch) {
        for (int k = 0; k < batch; ++k) shared.sums.values[k][t.thread] = of_thread(first + k);
        combine_threads<Sum>(t, shared.sums);
        if (t.thread < batch && first + t.thread < terms)
          partial[t.block * terms + first + t.thread] = shared.sums.values[t.thread][0];
        t.sync();  // before the next values are written
      }
      if (t.arrive_last(arrivals))
        merge_parts<Sum>(t, shared.sums, partial, terms, parts.groups(), parts.per_group(), sums);
    }
  }
};

template <int bits, class F>
void map_levels(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, float* out,
                const float* in) {
  if (n == 0) return;
  const Parts parts(n, grouping);
  launch(stream, parts.count(), Codes<bits, F, false>{parts, f, nullptr, nullptr, stream.arrivals, out, in});
}

template <int bits, class F>
void map_codes(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, float* sums,
               float* out, const float* in) {
  using Kernel = Codes<bits, F, true>;
  const Parts parts(n, grouping);
  const Scratch<double> partial(stream, parts.count() * Kernel::terms);
  launch(stream, parts.count(), Kernel{parts, f, sums, partial.data(), stream.arrivals, out, in});
}

}  // namespace qtrain::device
