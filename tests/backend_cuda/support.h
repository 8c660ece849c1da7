// What tests of the CUDA backend share: skipping where there is no GPU, and bfloat16 tensors.
#pragma once

#include <bit>

#include "engine/backend/backend.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/device_info.h"
#include "tests/devices.h"
#include "tests/engine/support.h"

namespace qtrain::testing_support {

inline constexpr Device gpu{DeviceType::cuda, 0};

// The base of tests that need a GPU.
class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override { skip_without(gpu); }
};

// Half to even; finite values only.
inline BFloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return {static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
}
inline float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// A tensor's values in another element type on the GPU.
inline Tensor on_gpu(const Tensor& t, DType dtype) {
  if (dtype == DType::f32) return t.to(gpu);
  std::vector<BFloat16> rounded;
  for (const float v : t.values()) rounded.push_back(to_bfloat16(v));
  return Tensor::from_values<BFloat16>(t.shape(), rounded, gpu);
}

inline std::vector<float> float_values(const Tensor& t) {
  if (t.dtype() == DType::f32) return t.values();
  std::vector<float> values;
  for (const BFloat16 v : t.values<BFloat16>()) values.push_back(to_float(v));
  return values;
}

// Random values that are bfloat16 numbers, so that both backends are given the same ones.
inline Tensor random_bfloat16_numbers(const Shape& shape, std::uint64_t seed) {
  std::vector<float> values = random_values(shape.numel(), seed);
  for (float& v : values) v = to_float(to_bfloat16(v));
  return Tensor::from_values(shape, values);
}

}  // namespace qtrain::testing_support
