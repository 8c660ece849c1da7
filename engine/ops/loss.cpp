#include "engine/ops/loss.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/ops/check.h"
#include "engine/ops/reduce.h"

namespace qtrain {
namespace {

void check_classification(std::string_view op, const Tensor& logits, const Tensor& labels) {
  check::tensor(op, "logits", logits);
  check::rank(op, "logits", logits, {2});
  check::tensor(op, "labels", labels, DType::i64);
  check::shape(op, "labels", labels, {logits.dim(0)});
  check::sizes(logits.numel() > 0, op, "an empty batch", logits.str(), "at least one row");
  check::same_device(op, {logits, labels});
  if (labels.device().type != DeviceType::cpu) return;  // reading them would make the host wait
  for (const std::int64_t label :
       std::span(labels.data<std::int64_t>(), static_cast<std::size_t>(labels.numel())))
    check::value(label >= 0 && label < logits.dim(1), op, "label out of range", std::to_string(label),
                 fmt::format("0..{}", logits.dim(1) - 1),
                 "does the model have as many outputs as the data has classes?");
}

// With p = softmax(z): loss = -sum_k q_k log p_k and dloss/dz = p - q, per row, divided by the number of
// rows.
struct RowLoss {
  const float* logits;
  const std::int64_t* labels;
  float* probabilities;
  float* losses;
  std::int64_t classes;
  float smoothing;

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
    const double log_total = log(total);
    const std::int64_t label = labels[row];
    const auto k_count = static_cast<double>(classes);
    // log p_k = z_k - top - log(total), summed over the classes for the smoothed part.
    const double at_label = static_cast<double>(z[label] - top) - log_total;
    const double mean_log_p = sum_z / k_count - log_total;
    const auto s = static_cast<double>(smoothing);
    losses[row] = static_cast<float>(-((1 - s) * at_label + (s > 0 ? s * mean_log_p : 0.0)));
    const auto inverse = static_cast<float>(1 / total);
    for (std::int64_t k = 0; k < classes; ++k) p[k] *= inverse;
  }
};

struct RowGradient {
  const float* probabilities;
  const std::int64_t* labels;
  const float* upstream;  // one value
  float* gradient;
  std::int64_t rows, classes;
  float on, off;  // q at the label and elsewhere

  QTRAIN_HOST_DEVICE void operator()(std::int64_t row) const {
    const float factor = *upstream / static_cast<float>(rows);
    for (std::int64_t k = 0; k < classes; ++k)
      gradient[row * classes + k] =
          factor * (probabilities[row * classes + k] - (k == labels[row] ? on : off));
  }
};

struct RowHit {
  const float* logits;
  const std::int64_t* labels;
  float* hits;
  std::int64_t classes, k;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t row) const {
    const float* scores = logits + row * classes;
    const std::int64_t label = labels[row];
    const float own = scores[label];
    std::int64_t ahead = 0;
    for (std::int64_t c = 0; c < classes; ++c)
      ahead += scores[c] > own || (scores[c] == own && c < label) ? 1 : 0;
    hits[row] = own == own && ahead < k ? 1.0F : 0.0F;  // a NaN score is never right
  }
};

struct CrossEntropyNode final : Node {
  SavedTensor probabilities{"probabilities"};
  SavedTensor labels{"labels"};
  float smoothing = 0;

  std::string_view name() const override { return "softmax_cross_entropy"; }
  std::vector<SavedTensor*> saved() override { return {&probabilities, &labels}; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor p = probabilities.get();
    const Tensor grad = Tensor::empty_like(p);
    const float off = smoothing / static_cast<float>(p.dim(1));
    const Tensor kept_labels = labels.get();
    for_each(backend(p.device()).stream(), p.dim(0),
             RowGradient{.probabilities = p.data<float>(),
                         .labels = kept_labels.data<std::int64_t>(),
                         .upstream = grad_outputs[0].data<float>(),
                         .gradient = grad.data<float>(),
                         .rows = p.dim(0),
                         .classes = p.dim(1),
                         .on = 1.0F - smoothing + off,
                         .off = off},
             16);
    return {grad};
  }
};

}  // namespace

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, float label_smoothing) {
  check_classification("softmax_cross_entropy", logits, labels);
  check::value(label_smoothing >= 0 && label_smoothing <= 1, "softmax_cross_entropy", "label smoothing",
               std::to_string(label_smoothing), "0..1");
  const std::int64_t rows = logits.dim(0);
  Tensor probabilities = Tensor::empty_like(logits);
  Tensor losses = Tensor::empty({rows}, DType::f32, logits.device());
  for_each(backend(logits.device()).stream(), rows,
           RowLoss{logits.data<float>(), labels.data<std::int64_t>(), probabilities.data<float>(),
                   losses.data<float>(), logits.dim(1), label_smoothing},
           16);
  Tensor loss;
  {
    const NoGradGuard no_grad;
    loss = mean(losses);
  }
  return Tape::record<CrossEntropyNode>("softmax_cross_entropy", {logits}, loss, [&](CrossEntropyNode& node) {
    node.probabilities.save(probabilities);
    node.labels.save(labels);
    node.smoothing = label_smoothing;
  });
}

Tensor count_top_k(const Tensor& logits, const Tensor& labels, std::int64_t k) {
  check_classification("count_top_k", logits, labels);
  check::value(k >= 1, "count_top_k", "k", std::to_string(k), "at least 1");
  Tensor hits = Tensor::empty({logits.dim(0)}, DType::f32, logits.device());
  for_each(backend(logits.device()).stream(), logits.dim(0),
           RowHit{logits.data<float>(), labels.data<std::int64_t>(), hits.data<float>(), logits.dim(1), k},
           16);
  const NoGradGuard no_grad;
  return sum(hits).view({1});
}

}  // namespace qtrain
