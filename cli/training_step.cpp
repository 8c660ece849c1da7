#include "cli/training_step.h"

#include "engine/autograd/tape.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/cast.h"
#include "engine/ops/loss.h"
#include "engine/optim/clip.h"
#include "quant/wrap.h"

namespace qtrain::cli {

Tensor classification_loss(const Tensor& logits, const DeviceBatch& batch, const TrainOptions& options) {
  const auto smoothing = static_cast<float>(options.label_smoothing);
  if (!batch.partner_labels.defined()) return softmax_cross_entropy(logits, batch.labels, smoothing);
  return softmax_cross_entropy(logits, MixedLabels{batch.labels, batch.partner_labels, batch.lambda},
                               smoothing);
}

TrainingStep::TrainingStep(Session& session, StepMeter& meter, Backend& backend)
    : session_(session),
      meter_(meter),
      graph_(backend, session.options.graph),
      traces_(*session.network, *session.optimizer),
      input_(session.device),
      parameters_(session.network->parameters()) {}

// What forward() does depends on the batch's size, on the modules' settings, and on what notes its changes.
StepGraph::Ran TrainingStep::run_graph(const std::function<void()>& look) {
  StepGraph::Key key;
  if (graph_.is_on()) {
    const std::uint64_t change = latest_change(*session_.network);
    if (change != change_) graph_.forget();
    change_ = change;
    key = settings(*session_.network);
    key.insert(key.end(), input_.shape().dims().begin(), input_.shape().dims().end());
  }
  return graph_.run(key, [&] { return device_part(look); });
}

void TrainingStep::run(const data::Batch& batch, std::int64_t step, const std::function<void()>& look) {
  Optimizer& optimizer = *session_.optimizer;
  input_.load(batch);
  optimizer.set_learning_rate(session_.options.lr * session_.schedule(step));
  optimizer.prepare_step();
  meter_.add(step + 1, batch.count);
  const StepGraph::Ran ran = run_graph(look);
  if (ran == StepGraph::Ran::replayed) traces_.replay(graph_.traces());
  if (ran != StepGraph::Ran::by_host) look();
}

StepGraph::Report TrainingStep::device_part(const std::function<void()>& look) {
  Module& network = *session_.network;
  Optimizer& optimizer = *session_.optimizer;
  if (graph_.is_on()) traces_.start();
  forward_and_backward();
  if (!graph_.is_recording()) look();
  const bool as_prepared = optimizer.apply();
  StepGraph::Report report;
  if (graph_.is_on()) report = {.repeats = as_prepared && is_steady(network), .traces = traces_.finish()};
  quant::after_update(network);
  optimizer.zero_grad();
  return report;
}

void TrainingStep::forward_and_backward() {
  const TrainOptions& o = session_.options;
  Module& network = *session_.network;
  const DeviceBatch batch = input();
  Tensor loss;
  Tensor correct;
  {
    const Tensor logits = cast(network(batch.images), DType::f32);
    loss = classification_loss(logits, batch, o);
    const Tensor of_quantizers = quant::take_quantization_loss(network);
    if (of_quantizers.defined()) loss = add(loss, of_quantizers);
    correct = count_top_k(logits, batch.labels, 1);
  }
  Tape::backward(loss);
  quant::before_update(network);
  // The norm costs one pass over the gradients, and shows an overflow before it reaches the weights.
  const Tensor norm = o.clip_grad > 0 ? clip_gradient_norm(parameters_, static_cast<float>(o.clip_grad))
                                      : gradient_norm(parameters_);
  meter_.record(loss, norm, correct);
}

}  // namespace qtrain::cli
