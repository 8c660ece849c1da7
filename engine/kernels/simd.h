// Sixteen float32 lanes as one value; the compiler maps them to whatever vector registers the target has.
#pragma once

#include <cstdint>
#include <cstring>

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
#else
  Table found{};
  for (int l = 0; l < width; ++l) found[l] = table[index[l] & (width - 1)];
  return found;
#endif
}

}  // namespace qtrain::simd
