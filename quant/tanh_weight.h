// DoReFa's map of weights into [-1, 1] (Zhou et al. 2016, arXiv:1606.06160), with or without rounding:
//   t = tanh(w), m = max |t|, u = t / m, v = 2 Q((u + 1) / 2) - 1, y = s v
// The largest |t| is part of the function: with G = s dL/dy and S = {i : |t_i| = m},
//   dL/dt_i = G_i / m - [i in S] sign(t_i) (sum_j G_j t_j) / (m^2 |S|),   dL/dw = dL/dt (1 - t^2).
// The gradient of Q is taken as 1 (straight-through), and s is a constant for it.
// An all-zero tensor has u = 0 and gradient 0. Infinite weights count as t = +-1; a NaN makes the whole
// result NaN.
#pragma once

#include "engine/backend/backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/math.h"

namespace qtrain::quant {

struct TanhStatistics {
  Tensor whole;         // {max |w|, m}
  Tensor block_maxima;  // max |w| of each block
  static constexpr std::int64_t largest_weight = 0;
  static constexpr std::int64_t most_normalized = 1;
};

TanhStatistics tanh_statistics(const Tensor& w);

// In place of Q: v = u.
struct Unrounded {};

namespace detail {

template <class Q>
struct TanhNormalize {
  const float* statistics;
  Q q{};
  Divisor by_m{};
  float lift = 1;  // keeps a tiny m within the divisor's range
  QTRAIN_HOST_DEVICE void prepare() {
    const float m = statistics[TanhStatistics::most_normalized];
    lift = m == 0 ? 0.0F : (m < 1e-25F ? 0x1p100F : 1.0F);
    by_m.set(m == 0 ? 1.0F : m * lift);
  }
  QTRAIN_HOST_DEVICE float operator()(float w) const {
    const float u = by_m.divide(tanh_of(w) * lift);
    if constexpr (std::is_same_v<Q, Unrounded>)
      return u;
    else
      return 2.0F * q((u + 1.0F) / 2.0F) - 1.0F;
  }
};

}  // namespace detail

// v, off the tape. `q` is a functor that rounds z in [0, 1].
template <class Q>
Tensor tanh_normalized(const Tensor& w, const TanhStatistics& statistics, Q q) {
  Tensor v = Tensor::empty_like(w);
  map(backend(w.device()).stream(), w.numel(), detail::TanhNormalize<Q>{statistics.whole.data<float>(), q},
      v.data<float>(), w.data<float>());
  return v;
}

// Puts y = s v on the tape and returns it. s: a device scalar; undefined for 1. `op` is kept: a literal.
Tensor record_tanh_weight(std::string_view op, const Tensor& w, const Tensor& y,
                          const TanhStatistics& statistics, const Tensor& s = {});

}  // namespace qtrain::quant
