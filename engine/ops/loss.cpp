#include "engine/ops/loss.h"

#include <fmt/format.h>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/softmax.h"
#include "engine/ops/check.h"
#include "engine/ops/reduce.h"

namespace qtrain {
namespace {

void check_labels(std::string_view op, std::string_view name, const Tensor& logits, const Tensor& labels) {
  check::tensor(op, name, labels, DType::i64);
  check::shape(op, name, labels, {logits.dim(0)});
  check::same_device(op, {logits, labels});
  if (labels.device().type != DeviceType::cpu) return;  // reading them would make the host wait
  for (const std::int64_t label :
       std::span(labels.data<std::int64_t>(), static_cast<std::size_t>(labels.numel())))
    check::value(label >= 0 && label < logits.dim(1), op, "label out of range", std::to_string(label),
                 fmt::format("0..{}", logits.dim(1) - 1),
                 "does the model have as many outputs as the data has classes?");
}

void check_classification(std::string_view op, const Tensor& logits, const Tensor& labels) {
  check::tensor(op, "logits", logits);
  check::rank(op, "logits", logits, {2});
  check::sizes(logits.numel() > 0, op, "an empty batch", logits.str(), "at least one row");
  check_labels(op, "labels", logits, labels);
}

// dloss/dz = (p - q) / rows, elementwise over [rows, classes].
struct LossGradient {
  const float* probabilities;
  const std::int64_t* labels;
  const std::int64_t* partner_labels;  // nullptr: each row has one label
  const float* lambda;
  const float* upstream;  // one value
  float* gradient;
  std::int64_t rows, classes;
  float on, off;  // q at the label: their sum, and elsewhere
  float factor = 1;
  float first = 0;  // what the two labels have of `on`
  float second = 0;

  QTRAIN_HOST_DEVICE void prepare() {
    factor = *upstream / static_cast<float>(rows);
    const float share = partner_labels == nullptr ? 1.0F : *lambda;
    first = on * share;
    second = on * (1 - share);
  }
  QTRAIN_HOST_DEVICE float target(std::int64_t row, std::int64_t k) const {
    float q = k == labels[row] ? first + off : off;
    if (partner_labels != nullptr && k == partner_labels[row]) q += second;
    return q;
  }
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t row = i / classes;
    gradient[i] = factor * (probabilities[i] - target(row, i - row * classes));
  }
};

struct CrossEntropyNode final : Node {
  SavedTensor probabilities{"probabilities"};
  SavedTensor labels{"labels"};
  SavedTensor partner_labels{"partner_labels"};  // with lambda: of mixed labels only
  SavedTensor lambda{"lambda"};
  float smoothing = 0;

  std::string_view name() const override { return "softmax_cross_entropy"; }
  std::vector<SavedTensor*> saved() override { return {&probabilities, &labels, &partner_labels, &lambda}; }

  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor p = probabilities.get();
    const Tensor grad = Tensor::empty_like(p);
    const bool mixed = partner_labels.defined();
    const Tensor kept_labels = labels.get();
    const Tensor kept_partners = mixed ? partner_labels.get() : Tensor();
    const Tensor kept_lambda = mixed ? lambda.get() : Tensor();
    for_each(backend(p.device()).stream(), p.numel(),
             LossGradient{.probabilities = p.data<float>(),
                          .labels = kept_labels.data<std::int64_t>(),
                          .partner_labels = mixed ? kept_partners.data<std::int64_t>() : nullptr,
                          .lambda = mixed ? kept_lambda.data<float>() : nullptr,
                          .upstream = grad_outputs[0].data<float>(),
                          .gradient = grad.data<float>(),
                          .rows = p.dim(0),
                          .classes = p.dim(1),
                          .on = 1.0F - smoothing,
                          .off = smoothing / static_cast<float>(p.dim(1))});
    return {grad};
  }
};

// Both forms: `partner` and `lambda` are undefined where each row has one label.
Tensor cross_entropy(const Tensor& logits, const MixedLabels& labels, float label_smoothing) {
  constexpr std::string_view op = "softmax_cross_entropy";
  check_classification(op, logits, labels.first);
  check::value(label_smoothing >= 0 && label_smoothing <= 1, op, "label smoothing",
               std::to_string(label_smoothing), "0..1");
  const bool mixed = labels.partner.defined();
  const std::int64_t rows = logits.dim(0);
  Tensor probabilities = Tensor::empty_like(logits);
  Tensor losses = Tensor::empty({rows}, DType::f32, logits.device());
  for_rows(backend(logits.device()).stream(), rows,
           SoftmaxLoss{.logits = logits.data<float>(),
                       .labels = labels.first.data<std::int64_t>(),
                       .probabilities = probabilities.data<float>(),
                       .losses = losses.data<float>(),
                       .classes = logits.dim(1),
                       .smoothing = label_smoothing,
                       .partner_labels = mixed ? labels.partner.data<std::int64_t>() : nullptr,
                       .lambda = mixed ? labels.lambda.data<float>() : nullptr});
  Tensor loss;
  {
    const NoGradGuard no_grad;
    loss = mean(losses);
  }
  return Tape::record<CrossEntropyNode>(op, {logits}, loss, [&](CrossEntropyNode& node) {
    node.probabilities.save(probabilities);
    node.labels.save(labels.first);
    if (mixed) {
      node.partner_labels.save(labels.partner);
      node.lambda.save(labels.lambda);
    }
    node.smoothing = label_smoothing;
  });
}

}  // namespace

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, float label_smoothing) {
  return cross_entropy(logits, {.first = labels, .partner = {}, .lambda = {}}, label_smoothing);
}

Tensor softmax_cross_entropy(const Tensor& logits, const MixedLabels& labels, float label_smoothing) {
  constexpr std::string_view op = "softmax_cross_entropy";
  check_classification(op, logits, labels.first);
  check_labels(op, "partner labels", logits, labels.partner);
  check::tensor(op, "lambda", labels.lambda, DType::f32);
  check::shape(op, "lambda", labels.lambda, {1});
  check::same_device(op, {logits, labels.lambda});
  if (labels.lambda.device().type == DeviceType::cpu) {
    const float share = *labels.lambda.data<float>();
    check::value(share >= 0 && share <= 1, op, "lambda", std::to_string(share), "0..1");
  }
  return cross_entropy(logits, labels, label_smoothing);
}

Tensor count_top_k(const Tensor& logits, const Tensor& labels, std::int64_t k) {
  check_classification("count_top_k", logits, labels);
  check::value(k >= 1, "count_top_k", "k", std::to_string(k), "at least 1");
  Tensor hits = Tensor::empty({logits.dim(0)}, DType::f32, logits.device());
  for_rows(backend(logits.device()).stream(), logits.dim(0),
           Hit{logits.data<float>(), labels.data<std::int64_t>(), hits.data<float>(), logits.dim(1), k});
  const NoGradGuard no_grad;
  return sum(hits).view({1});
}

}  // namespace qtrain
