#include "engine/ops/loss.h"

#include <fmt/format.h>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/kernels/softmax.h"
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

// dloss/dz = (p - q) / rows, elementwise over [rows, classes].
struct LossGradient {
  const float* probabilities;
  const std::int64_t* labels;
  const float* upstream;  // one value
  float* gradient;
  std::int64_t rows, classes;
  float on, off;  // q at the label and elsewhere
  float factor = 1;

  QTRAIN_HOST_DEVICE void prepare() { factor = *upstream / static_cast<float>(rows); }
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t row = i / classes;
    gradient[i] = factor * (probabilities[i] - (i - row * classes == labels[row] ? on : off));
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
    for_each(backend(p.device()).stream(), p.numel(),
             LossGradient{.probabilities = p.data<float>(),
                          .labels = kept_labels.data<std::int64_t>(),
                          .upstream = grad_outputs[0].data<float>(),
                          .gradient = grad.data<float>(),
                          .rows = p.dim(0),
                          .classes = p.dim(1),
                          .on = 1.0F - smoothing + off,
                          .off = off});
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
  for_rows(backend(logits.device()).stream(), rows,
           SoftmaxLoss{logits.data<float>(), labels.data<std::int64_t>(), probabilities.data<float>(),
                       losses.data<float>(), logits.dim(1), label_smoothing});
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
  for_rows(backend(logits.device()).stream(), logits.dim(0),
           Hit{logits.data<float>(), labels.data<std::int64_t>(), hits.data<float>(), logits.dim(1), k});
  const NoGradGuard no_grad;
  return sum(hits).view({1});
}

}  // namespace qtrain
