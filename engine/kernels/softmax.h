// Softmax cross entropy and hits, row by row of logits [rows, classes]:
//   p = softmax(z), loss = -sum_k q_k log p_k with q = (1 - s) onehot(label) + s / classes, or, where images
//   are mixed of two, (1 - s) (lambda onehot(label) + (1 - lambda) onehot(partner label)) + s / classes
//   a row is a hit if fewer than k classes score higher than its label, ties going to the lower class
// On the CPU a thread takes a row, on a GPU a block of threads.
#pragma once

#include <cmath>
#include <limits>

#include "engine/kernels/device/block_sums.h"
#include "engine/kernels/elementwise.h"

namespace qtrain {

// A row's score at its label; NaN where there is no such class (only a GPU gets here with one).
QTRAIN_HOST_DEVICE float score_at(const float* scores, std::int64_t label, std::int64_t classes) {
  return label >= 0 && label < classes ? scores[label] : std::numeric_limits<float>::quiet_NaN();
}

struct SoftmaxLoss {
  const float* logits;
  const std::int64_t* labels;
  float* probabilities;
  float* losses;
  std::int64_t classes;
  float smoothing;
  const std::int64_t* partner_labels = nullptr;  // nullptr: each row has one label
  const float* lambda = nullptr;                 // one value

  // z - top at the row's label; of two labels, their mean with the weights that they have in q.
  QTRAIN_HOST_DEVICE double own_score(const float* z, float top, std::int64_t row) const {
    const auto first = static_cast<double>(score_at(z, labels[row], classes) - top);
    if (partner_labels == nullptr) return first;
    const auto second = static_cast<double>(score_at(z, partner_labels[row], classes) - top);
    const auto share = static_cast<double>(*lambda);
    return share * first + (1 - share) * second;
  }

  // log p_k = z_k - top - log(total), summed over the classes for the smoothed part.
  QTRAIN_HOST_DEVICE float loss(double own, double total, double sum_z) const {
    const double log_total = log(total);
    const double mean_log_p = sum_z / static_cast<double>(classes) - log_total;
    const auto s = static_cast<double>(smoothing);
    const double log_p = own - log_total;
    return static_cast<float>(-((1 - s) * log_p + (s > 0 ? s * mean_log_p : 0.0)));
  }

  QTRAIN_HOST_DEVICE void operator()(std::int64_t row) const {
    const float* z = logits + row * classes;
    float* p = probabilities + row * classes;
    float top = z[0];
    for (std::int64_t k = 1; k < classes; ++k) top = z[k] > top || z[k] != z[k] ? z[k] : top;
    double total = 0;
    double sum_z = 0;
    for (std::int64_t k = 0; k < classes; ++k) {
      p[k] = expf(z[k] - top);
      total += static_cast<double>(p[k]);
      sum_z += static_cast<double>(z[k] - top);
    }
    losses[row] = loss(own_score(z, top, row), total, sum_z);
    const auto inverse = static_cast<float>(1 / total);
    for (std::int64_t k = 0; k < classes; ++k) p[k] *= inverse;
  }
};

struct Hit {
  const float* logits;
  const std::int64_t* labels;
  float* hits;
  std::int64_t classes, k;

  // Whether class c comes before the label.
  QTRAIN_HOST_DEVICE static bool is_ahead(float score, float own, std::int64_t c, std::int64_t label) {
    return score > own || (score == own && c < label);
  }
  QTRAIN_HOST_DEVICE float hit(float own, std::int64_t ahead) const {
    return own == own && ahead < k ? 1.0F : 0.0F;  // a NaN score is never right
  }
  QTRAIN_HOST_DEVICE void operator()(std::int64_t row) const {
    const float* scores = logits + row * classes;
    const std::int64_t label = labels[row];
    const float own = score_at(scores, label, classes);
    std::int64_t ahead = 0;
    for (std::int64_t c = 0; c < classes; ++c) ahead += is_ahead(scores[c], own, c, label) ? 1 : 0;
    hits[row] = hit(own, ahead);
  }
};

namespace device {

struct SoftmaxRows {
  static constexpr int threads = reduction_threads;
  using Shared = BlockSums<2>;
  SoftmaxLoss of;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const float* z = of.logits + t.block * of.classes;
    float* p = of.probabilities + t.block * of.classes;
    float top = Maximum::identity;
    for (std::int64_t k = t.thread; k < of.classes; k += threads) top = Maximum::combine(top, z[k]);
    shared.values[0][t.thread] = static_cast<double>(top);
    shared.values[1][t.thread] = 0;
    combine_threads<Maximum>(t, shared);
    top = static_cast<float>(shared.values[0][0]);
    t.sync();
    double total = 0;
    double sum_z = 0;
    for (std::int64_t k = t.thread; k < of.classes; k += threads) {
      p[k] = expf(z[k] - top);
      total += static_cast<double>(p[k]);
      sum_z += static_cast<double>(z[k] - top);
    }
    shared.values[0][t.thread] = total;
    shared.values[1][t.thread] = sum_z;
    combine_threads<Sum>(t, shared);
    const auto inverse = static_cast<float>(1 / shared.values[0][0]);
    for (std::int64_t k = t.thread; k < of.classes; k += threads) p[k] *= inverse;
    if (t.thread == 0)
      of.losses[t.block] = of.loss(of.own_score(z, top, t.block), shared.values[0][0], shared.values[1][0]);
  }
};

struct HitRows {
  static constexpr int threads = reduction_threads;
  using Shared = BlockSums<1>;
  Hit of;

  template <class Thread>
  QTRAIN_HOST_DEVICE void operator()(const Thread& t, Shared& shared) const {
    const float* scores = of.logits + t.block * of.classes;
    const std::int64_t label = of.labels[t.block];
    const float own = score_at(scores, label, of.classes);
    std::int64_t ahead = 0;
    for (std::int64_t c = t.thread; c < of.classes; c += threads)
      ahead += Hit::is_ahead(scores[c], own, c, label) ? 1 : 0;
    shared.values[0][t.thread] = static_cast<double>(ahead);
    combine_threads<Sum>(t, shared);
    if (t.thread == 0) of.hits[t.block] = of.hit(own, static_cast<std::int64_t>(shared.values[0][0]));
  }
};

}  // namespace device

inline constexpr std::int64_t rows_of_a_thread = 16;

template <class RowMath>
void for_rows(const Stream& stream, std::int64_t rows, const RowMath& math) {
  if (!on_device(stream)) return for_each(stream, rows, math, rows_of_a_thread);
  if constexpr (std::is_same_v<RowMath, SoftmaxLoss>)
    device::launch(stream, rows, device::SoftmaxRows{math});
  else
    device::launch(stream, rows, device::HitRows{math});
}

}  // namespace qtrain
