// Rounding to levels that belong to codes of b digits 0 and 1; with the sums that a least-squares fit of the
// levels needs, in the same pass over memory:
//
//   map_levels<bits>(stream, n, grouping, f, out, in)
//   map_codes<bits>(stream, n, grouping, f, sums, out, in)
//
// for groups as in grouped.h. The copyable f has, after f.prepare(group), arrays of 2^bits elements:
//   float thresholds[], levels[]   ascending; out = levels[i], i = the number of thresholds from the second
//                                  on that lie below the element; NaN stays
//   std::int32_t codes[]           of the levels, digit j at bit j
// sums[m * groups + group] for m = 0, 1, ... code_sums(bits) - 1:
//   for each pair of digits j <= k, at pair_position(): the number of elements that have both
//   for each digit: the sum of the elements that have it
//   the sum of all elements
#pragma once

#include "engine/kernels/device/codes.h"
#include "engine/kernels/grouped.h"
#include "engine/kernels/levels.h"
#include "engine/kernels/simd.h"

namespace qtrain {

namespace detail {

// Adds `number` elements that have this code, and their sum.
template <int bits>
void add_code(std::int32_t code, double number, double sum, double* sums) {
  sums[code_sums(bits) - 1] += sum;
  for (int j = 0; j < bits; ++j) {
    if ((code >> j & 1) == 0) continue;
    sums[pair_count(bits) + j] += sum;
    for (int k = j; k < bits; ++k)
      if ((code >> k & 1) != 0) sums[pair_position(bits, j, k)] += number;
  }
}

// Up to 4 bits a vector holds a table of all levels, in which 16 elements are looked up by one instruction.
template <int bits>
constexpr bool fits_vector = 1 << bits <= simd::width;

template <int bits>
struct LevelVectors {
  simd::Vec thresholds{};
  simd::Vec levels{};

  template <class F>
  void set(const F& f) {
    for (int i = 0; i < 1 << bits; ++i) {
      thresholds[i] = f.thresholds[i];
      levels[i] = f.levels[i];
    }
  }
  simd::Mask find(simd::Vec x) const { return find(x, std::make_index_sequence<bits>()); }
  template <std::size_t... step>
  simd::Mask find(simd::Vec x, std::index_sequence<step...>) const {
    simd::Mask i{};
    ((i = x > simd::look_up(thresholds, i + (1 << bits >> (step + 1))) ? i + (1 << bits >> (step + 1)) : i),
     ...);
    return i;
  }
  simd::Vec value(simd::Vec x, simd::Mask level) const { return x == x ? simd::look_up(levels, level) : x; }
};

template <int bits, class F>
struct LevelRuns {
  F f;
  void prepare(std::int64_t group) { prepare_group(f, group); }
  float operator()(float x) const { return value_at(f, level_of<bits>(f, x), x); }
  void round(std::int64_t begin, std::int64_t end, float* out, const float* in) const {
    map_block(*this, begin, end, out, in);
  }
};

template <int bits, class F>
requires fits_vector<bits>
struct LevelRuns<bits, F> {
  F f;
  LevelVectors<bits> vectors{};
  void prepare(std::int64_t group) {
    prepare_group(f, group);
    vectors.set(f);
  }
  void round(std::int64_t begin, std::int64_t end, float* out, const float* in) const {
    const LevelVectors<bits> mine = vectors;  // a copy that `out` can't alias
    std::int64_t i = begin;
    for (; i + simd::width <= end; i += simd::width) {
      const simd::Vec x = simd::load(in + i);
      simd::store(out + i, mine.value(x, mine.find(x)));
    }
    for (; i < end; ++i) out[i] = value_at(f, level_of<bits>(f, in[i]), in[i]);
  }
};

template <int bits, class F>
void sum_codes_one_by_one(const F& f, std::int64_t begin, std::int64_t end, double* sums, float* out,
                          const float* in) {
  for (std::int64_t i = begin; i < end; ++i) {
    const float x = in[i];
    const std::int32_t level = level_of<bits>(f, x);
    out[i] = value_at(f, level, x);
    add_code<bits>(f.codes[level], 1, static_cast<double>(x), sums);
  }
}

// Any width: a histogram, which pays for runs that are longer than it.
template <int bits, class F>
struct CodeRuns {
  F f;
  void prepare(std::int64_t group) { prepare_group(f, group); }
  void operator()(std::int64_t begin, std::int64_t end, double* sums, float* out, const float* in) const {
    constexpr int count = 1 << bits;
    if (end - begin < count) return sum_codes_one_by_one<bits>(f, begin, end, sums, out, in);
    double sum_of[count]{};
    std::int32_t number_of[count]{};
    for (std::int64_t i = begin; i < end; ++i) {
      const float x = in[i];
      const std::int32_t level = level_of<bits>(f, x);
      out[i] = value_at(f, level, x);
      sum_of[level] += static_cast<double>(x);
      ++number_of[level];
    }
    for (int i = 0; i < count; ++i)
      if (number_of[i] > 0) add_code<bits>(f.codes[i], number_of[i], sum_of[i], sums);
  }
};

// The counts of four pairs share an int32, one byte each, until they are moved to an int32 of their own.
template <int bits, class F>
requires fits_vector<bits>
struct CodeRuns<bits, F> {
  static constexpr int pairs = pair_count(bits);
  static constexpr int words = (pairs + 3) / 4;
  static constexpr std::int64_t piece = 127 * simd::width;  // so many rows fit a signed byte

  F f;
  LevelVectors<bits> vectors{};
  simd::Mask pairs_of[words]{};

  void prepare(std::int64_t group) {
    prepare_group(f, group);
    for (simd::Mask& word : pairs_of) word = simd::Mask{};
    vectors.set(f);
    for (int i = 0; i < 1 << bits; ++i)
      for (int j = 0; j < bits; ++j)
        for (int k = j; k < bits; ++k)
          pairs_of[pair_position(bits, j, k) / 4][i] |= (f.codes[i] >> j & f.codes[i] >> k & 1)
                                                        << byte_of(j, k);
  }

  void operator()(std::int64_t begin, std::int64_t end, double* sums, float* out, const float* in) const {
    const std::int64_t whole = begin + (end - begin) / simd::width * simd::width;
    if (begin < whole) {
      Lanes lanes;
      for (std::int64_t i = begin; i < whole; i += piece)
        sum_piece(i, std::min(whole, i + piece), lanes, out, in, std::make_index_sequence<bits>(),
                  std::make_index_sequence<words>());
      lanes.add_to(sums);
    }
    sum_codes_one_by_one<bits>(f, whole, end, sums, out, in);
  }

 private:
  static constexpr int byte_of(int j, int k) { return pair_position(bits, j, k) % 4 * 8; }

  struct Lanes {
    double sums[bits + 1][simd::width]{};
    std::int32_t counts[pairs][simd::width]{};

    void add(int m, simd::Vec sum) {
      for (int l = 0; l < simd::width; ++l) sums[m][l] += static_cast<double>(sum[l]);
    }
    void add_counts(int word, simd::Mask bytes) {
      for (int p = word * 4; p < std::min(pairs, word * 4 + 4); ++p) {
        const simd::Mask counted = bytes >> (p % 4 * 8) & 255;
        for (int l = 0; l < simd::width; ++l) counts[p][l] += counted[l];
      }
    }
    void add_to(double* results) const {
      for (int l = 0; l < simd::width; ++l) {
        for (int p = 0; p < pairs; ++p) results[p] += counts[p][l];
        for (int m = 0; m <= bits; ++m) results[pairs + m] += sums[m][l];
      }
    }
  };

  template <std::size_t... j, std::size_t... w>
  void sum_piece(std::int64_t begin, std::int64_t end, Lanes& lanes, float* out, const float* in,
                 std::index_sequence<j...>, std::index_sequence<w...>) const {
    const LevelVectors<bits> mine = vectors;  // copies that `out` can't alias
    const simd::Mask pairs_in[] = {pairs_of[w]...};
    simd::Vec total{};
    simd::Vec with_digit[bits]{};
    simd::Mask counted[words]{};
    for (std::int64_t i = begin; i < end; i += simd::width) {
      const simd::Vec x = simd::load(in + i);
      const simd::Mask level = mine.find(x);
      simd::store(out + i, mine.value(x, level));
      const simd::Mask has[] = {simd::look_up(pairs_in[w], level)...};
      ((counted[w] += has[w]), ...);
      ((with_digit[j] = (has[digit_word(j)] & 1 << digit_byte(j)) != 0 ? with_digit[j] + x : with_digit[j]),
       ...);
      total += x;
    }
    (lanes.add(static_cast<int>(j), with_digit[j]), ...);
    lanes.add(bits, total);
    (lanes.add_counts(static_cast<int>(w), counted[w]), ...);
  }

  // Where a digit's pair with itself is counted.
  static constexpr std::size_t digit_word(std::size_t j) {
    const int digit = static_cast<int>(j);
    return static_cast<std::size_t>(pair_position(bits, digit, digit) / 4);
  }
  static constexpr int digit_byte(std::size_t j) { return byte_of(static_cast<int>(j), static_cast<int>(j)); }
};

}  // namespace detail

template <int bits, class F>
void map_levels(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, float* out,
                const float* in) {
  if (on_device(stream)) return device::map_levels<bits>(stream, n, grouping, f, out, in);
#if !defined(__CUDA_ARCH__)  // nvcc's device pass can't take vectors in host code
  using Runs = detail::LevelRuns<bits, F>;
  detail::for_group_runs(n, grouping, Runs{f},
                         [&](const Runs& runs, std::int64_t, std::size_t, std::int64_t begin,
                             std::int64_t end) { runs.round(begin, end, out, in); });
#endif
}

template <int bits, class F>
void map_codes(const Stream& stream, std::int64_t n, const Grouping& grouping, const F& f, float* sums,
               float* out, const float* in) {
  if (on_device(stream)) return device::map_codes<bits>(stream, n, grouping, f, sums, out, in);
#if !defined(__CUDA_ARCH__)
  detail::combine_runs<code_sums(bits), Sum>(stream, n, grouping, detail::CodeRuns<bits, F>{f}, sums,
                                             [out, in](const auto& runs, std::int64_t begin, std::int64_t end,
                                                       double* into) { runs(begin, end, into, out, in); });
#endif
}

}  // namespace qtrain
