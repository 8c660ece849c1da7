// The plain loops that a quantizer's passes are compared with, and the time of such passes.
#pragma once

#include "bench/measure.h"
#include "engine/autograd/tape.h"
#include "quant/quantizer.h"

namespace qtrain::bench {

// b = s a, and c = a + b, with ordinary stores, as in STREAM.
inline void scale(std::int64_t n, float factor, const float* a, float* b) {
#pragma omp parallel for simd schedule(static)
  for (std::int64_t i = 0; i < n; ++i) b[i] = factor * a[i];
}

inline void add(std::int64_t n, const float* a, const float* b, float* c) {
#pragma omp parallel for simd schedule(static)
  for (std::int64_t i = 0; i < n; ++i) c[i] = a[i] + b[i];
}

// Uniform in (low, high), from a multiplicative hash: a counter-based generator would take minutes here.
inline Tensor uniform(const Shape& shape, float low, float high) {
  Tensor t = Tensor::empty(shape);
  auto* values = t.data<float>();
  const std::int64_t n = t.numel();
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t hash = static_cast<std::uint32_t>(i + 1) * 2654435761U;
    values[i] = low + (high - low) * static_cast<float>(hash >> 8U) / 16777216.0F;
  }
  return t;
}

struct PassSeconds {
  double forward = 0;
  double backward = 0;
};

// The mean seconds of quantizer(x) and of its backward.
inline PassSeconds time_quantizer(quant::Quantizer& quantizer, Tensor& x, const Tensor& gradient, int inner) {
  PassSeconds total;
  for (int i = 0; i < inner; ++i) {
    Tensor y;
    total.forward += seconds_of([&] { y = quantizer.forward(x); });
    total.backward += seconds_of([&] { Tape::backward(y, gradient); });
    x.set_grad({});
    for (const Tensor& p : quantizer.parameters()) p.set_grad({});
  }
  return {total.forward / inner, total.backward / inner};
}

}  // namespace qtrain::bench
