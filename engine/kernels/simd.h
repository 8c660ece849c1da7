// Sixteen float32 lanes as one value; the compiler maps them to whatever vector registers the target has.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace qtrain::simd {

inline constexpr std::int64_t width = 16;
using Vec = float __attribute__((vector_size(64)));
using Mask = int __attribute__((vector_size(64)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) {
  std::memcpy(p, &v, sizeof v);
}
inline Vec fill(float x) {
  return Vec{} + x;
}
// table[index[l]] for each lane l; indices are below 16.
template <class Table>
Table look_up(Table table, Mask index) {
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
  return __builtin_shuffle(table, index);
#elif defined(__AVX512F__)  // nvcc's front end doesn't know g++'s shuffle; a mask of all lanes: no old values
  return std::bit_cast<Table>(
      _mm512_maskz_permutexvar_epi32(0xffff, std::bit_cast<__m512i>(index), std::bit_cast<__m512i>(table)));
#else
  Table found{};
  for (int l = 0; l < width; ++l) found[l] = table[index[l] & (width - 1)];
  return found;
#endif
}

}  // namespace qtrain::simd
