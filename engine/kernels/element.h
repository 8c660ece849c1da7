// Elements as kernels see them: arithmetic is in float32, whatever tensors hold. load() and store() convert
// bf16 and leave every other type as it is.
#pragma once

#include <bit>
#include <cstdint>

#include "engine/core/dtype.h"
#include "engine/core/host_device.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#endif

namespace qtrain {

// The upper half of a float32.
QTRAIN_HOST_DEVICE float to_float(BFloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

// Round to nearest, ties to even; NaN stays a NaN (0x7fff, as the GPU's own instruction has it).
QTRAIN_HOST_DEVICE BFloat16 to_bfloat16(float x) {
#if defined(__CUDA_ARCH__)
  return std::bit_cast<BFloat16>(__float2bfloat16_rn(x));
#else
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return {static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : rounded)};
#endif
}

template <class T>
QTRAIN_HOST_DEVICE T load(T x) {
  return x;
}
QTRAIN_HOST_DEVICE float load(BFloat16 x) {
  return to_float(x);
}

template <class T, class Value>
QTRAIN_HOST_DEVICE void store(T& place, Value value) {
  if constexpr (std::is_same_v<T, BFloat16>)
    place = to_bfloat16(value);
  else
    place = value;
}

}  // namespace qtrain
