#include "cli/training_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/evaluation.h"
#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/io/tensor_file.h"
#include "engine/ops/cast.h"
#include "quant/wrap.h"

namespace qtrain::cli {
namespace {

constexpr std::size_t device_patience = 32;  // steps that may be unread where reading waits for the device

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Backward goes from the last layer to the first, so this is where it stands.
std::string last_without_gradient(Module& network) {
  std::string name = "the input";
  for (const NamedTensor& p : network.named_parameters())
    if (!p.tensor.grad().defined()) name = p.name;
  return name;
}

}  // namespace

TrainingLoop::TrainingLoop(Session& session, const RunFolder& folder, const RunState& state, bool saved)
    : session_(session),
      folder_(folder),
      state_(state),
      earlier_seconds_(state.seconds),
      started_(Clock::now()),
      metrics_(folder.path().string(), session.options.metrics_every, state.step, state.epoch),
      board_(folder.path().string(), state.step),
      meter_(session.device.type == DeviceType::cpu ? 1 : device_patience, session.device),
      step_(session, meter_, backend(session.device)),
      progress_(Progress::standard_output(session.options.log_interval), plan(), state.evaluations),
      saved_(saved),
      saved_step_(state.step) {}

RunPlan TrainingLoop::plan() const {
  const TrainOptions& o = session_.options;
  RunPlan plan;
  plan.epochs = o.epochs;
  plan.steps_per_epoch = session_.steps_per_epoch();
  plan.total_steps = o.epochs * plan.steps_per_epoch;
  if (o.max_steps > 0) plan.total_steps = std::min(plan.total_steps, o.max_steps);
  const std::int64_t epochs = (plan.total_steps + plan.steps_per_epoch - 1) / plan.steps_per_epoch;
  plan.evaluations = o.eval_every > 0 ? epochs / o.eval_every + (epochs % o.eval_every != 0 ? 1 : 0) : 1;
  plan.evaluation_batches = static_cast<std::int64_t>(session_.validation->batches_per_epoch());
  return plan;
}

RunResult TrainingLoop::run() {
  // From here on the run can be resumed; and a full disk shows before hours are spent.
  if (!saved_) save();
  while (result_.end == End::complete && state_.epoch < session_.options.epochs) {
    if (state_.batches == 0 && at_step_limit()) break;
    result_.end = run_epoch();
  }
  if (result_.end == End::signal) {
    if (saved_step_ != state_.step) save();
  } else if (!result_.validation) {  // nothing was left to train, or --max-steps ended within an epoch
    result_.validation = evaluate_network();
    if (!result_.validation) result_.end = End::signal;
    if (result_.end == End::step_limit) write_epoch_row();
  }
  if (result_.end == End::signal) result_.exit_status = signals_.exit_status();
  metrics_.sync();
  board_.flush();
  state_.seconds = earlier_seconds_ + seconds_since(started_);
  result_.state = state_;
  return result_;
}

End TrainingLoop::run_epoch() {
  data::Loader& loader = *session_.training;
  const std::int64_t every = session_.options.checkpoint_every;
  const std::int64_t steps = session_.steps_per_epoch();
  epoch_ = {};
  result_.validation.reset();
  const auto& milestones = session_.options.milestones;
  quant::start_epoch(*session_.network,
                     {.epoch = state_.epoch, .milestones = std::ranges::count_if(milestones, [&](auto epoch) {
                                               return epoch <= state_.epoch;
                                             })});
  loader.start_epoch(static_cast<std::uint64_t>(state_.epoch),
                     static_cast<std::size_t>(state_.batches * session_.options.batch_size));
  data::Batch batch;
  while (state_.batches < steps) {
    if (signals_.stop_requested()) return End::signal;
    if (at_step_limit()) {
      if (saved_step_ != state_.step) save();
      return End::step_limit;
    }
    const auto start = Clock::now();
    const double waited = loader.wait_seconds();
    if (!loader.next(batch)) break;
    train_batch(batch);
    report_step(batch.count, seconds_since(start), loader.wait_seconds() - waited);
    if (every > 0 && state_.step % every == 0 && state_.batches < steps) save();
  }
  if (signals_.stop_requested() || !finish_epoch()) return End::signal;
  return End::complete;
}

void TrainingLoop::train_batch(const data::Batch& batch) {
  step_.run(batch, state_.step, [this] {
    if (!meter_.due() && !metrics_.wants(state_.step + 1)) return;
    meter_.read(state_);
    if (!meter_.latest().is_finite()) explain_result(step_.input());
  });
  ++state_.step;
  ++state_.batches;
}

void TrainingLoop::report_step(std::int64_t images, double seconds, double wait_seconds) {
  row_.add(seconds, wait_seconds, images);
  epoch_.add(seconds, wait_seconds, images);
  result_.training.add(seconds, wait_seconds, images);
  if (metrics_.wants(state_.step)) {
    const StepResult& now = meter_.latest();
    const double lr = session_.optimizer->learning_rate();
    metrics_.step({.epoch = state_.epoch + 1,
                   .step = state_.step,
                   .loss = now.loss,
                   .top1 = now.top1(),
                   .lr = lr,
                   .images_per_second = row_.rate(),
                   .data_wait_share = row_.wait_share()});
    board_.add(state_.step, {{"train/loss", now.loss},
                             {"train/gradient_norm", now.gradient_norm},
                             {"train/top1", static_cast<float>(now.top1())},
                             {"train/lr", static_cast<float>(lr)}});
    row_ = {};
  }
  const auto seen = static_cast<double>(std::max<std::int64_t>(1, state_.images));
  progress_.step({.epoch = state_.epoch + 1,
                  .step_in_epoch = state_.batches,
                  .step = state_.step,
                  .loss = state_.loss_sum / seen,
                  .top1 = state_.correct / seen,
                  .images = images,
                  .seconds = seconds,
                  .wait_seconds = wait_seconds});
}

// The batch runs once more, forward and backward, with every result searched. Batch norm takes the statistics
// of the batch, so it doesn't matter that the running ones have moved.
void TrainingLoop::explain_result(const DeviceBatch& input) {
  const StepResult& bad = meter_.latest();
  const std::string symptom = std::isfinite(bad.loss)
                                  ? fmt::format("norm of the gradient is {}", bad.gradient_norm)
                                  : fmt::format("loss is {}", bad.loss);
  std::string finding;
  for (const NamedTensor& p : session_.network->named_parameters())
    if (finding.empty() && !non_finite_tensors({{p.name, p.tensor}}).empty())
      finding = fmt::format("{} has not been finite since an earlier update; ", p.name);
  session_.optimizer->zero_grad();
  bool backward = false;
  try {
    const FiniteCheckGuard guard;
    const Tensor logits = cast((*session_.network)(input.images), DType::f32);
    const Tensor loss = classification_loss(logits, input, session_.options);
    backward = true;
    Tape::backward(loss);
    finding += "nothing in this batch alone";
  } catch (const NumericError& error) {
    finding += error.what();
    if (backward) finding += "; the backward pass had come to " + last_without_gradient(*session_.network);
  }
  throw NumericError(
      {.where = fmt::format("step {}", bad.step),
       .what = fmt::format("the {}; first to go wrong: {}", symptom, finding),
       .got = "",
       .expected = "",
       .hint = fmt::format("try a lower --lr, --warmup-epochs or --clip-grad; the checkpoint of "
                           "step {} is whole: {}",
                           saved_step_, folder_.last().string())});
}

bool TrainingLoop::at_step_limit() const {
  const std::int64_t limit = session_.options.max_steps;
  return limit > 0 && state_.step >= limit;
}

bool TrainingLoop::wants_evaluation() const {
  const TrainOptions& o = session_.options;
  const std::int64_t epoch = state_.epoch + 1;
  return epoch == o.epochs || at_step_limit() || (o.eval_every > 0 && epoch % o.eval_every == 0);
}

std::optional<Validation> TrainingLoop::evaluate_network() {
  const auto start = Clock::now();
  const auto result = evaluate(*session_.network, *session_.validation, session_.data.normalization,
                               session_.device, [&](std::int64_t batch) {
                                 progress_.evaluation(batch, seconds_since(start));
                                 return !signals_.stop_requested();
                               });
  evaluation_seconds_ = seconds_since(start);
  if (!result) return std::nullopt;
  return result->means;
}

void TrainingLoop::write_epoch_row() {
  const auto& v = result_.validation;
  const auto seen = static_cast<double>(std::max<std::int64_t>(1, state_.images));
  const EpochRow row{.epoch = state_.epoch + 1,
                     .step = state_.step,
                     .train_loss = state_.loss_sum / seen,
                     .train_top1 = state_.correct / seen,
                     .validation = v,
                     .lr = session_.optimizer->learning_rate(),
                     .images_per_second = epoch_.rate(),
                     .data_wait_share = epoch_.wait_share(),
                     .train_seconds = epoch_.seconds,
                     .validation_seconds = v ? evaluation_seconds_ : 0};
  metrics_.epoch(row);
  std::string line = fmt::format("epoch {}/{}: train loss {:.4f}, top-1 {:.2f}%", row.epoch,
                                 session_.options.epochs, row.train_loss, 100 * row.train_top1);
  if (v) {
    line +=
        fmt::format("; val loss {:.4f}, top-1 {:.2f}%, top-5 {:.2f}%", v->loss, 100 * v->top1, 100 * v->top5);
    board_.add(state_.step, {{"val/loss", static_cast<float>(v->loss)},
                             {"val/top1", static_cast<float>(v->top1)},
                             {"val/top5", static_cast<float>(v->top5)}});
  }
  progress_.line(line + fmt::format("; lr {:.4g}; {:.0f} img/s, wait {:.0f}%; {}", row.lr,
                                    row.images_per_second, 100 * row.data_wait_share,
                                    duration_text(row.train_seconds + row.validation_seconds)));
}

bool TrainingLoop::finish_epoch() {
  meter_.read(state_);
  if (wants_evaluation()) {
    result_.validation = evaluate_network();
    if (!result_.validation) return false;
    ++state_.evaluations;
    state_.validation = result_.validation;
  }
  write_epoch_row();
  ++state_.epoch;
  state_.batches = 0;
  state_.loss_sum = state_.correct = 0;
  state_.images = 0;
  // The best one first: a process that dies between the two evaluates again and finds the same.
  if (result_.validation && result_.validation->top1 > state_.best_top1) {
    state_.best_top1 = result_.validation->top1;
    state_.best_epoch = state_.epoch;
    write(folder_.best());
  }
  save();
  return true;
}

void TrainingLoop::save() {
  meter_.read(state_);
  metrics_.sync();
  board_.flush();
  folder_.rotate([this](const std::filesystem::path& path) { write(path); });
  saved_step_ = state_.step;
}

void TrainingLoop::write(const std::filesystem::path& path) {
  state_.seconds = earlier_seconds_ + seconds_since(started_);
  write_checkpoint(path, *session_.network, *session_.optimizer, session_.options, state_,
                   session_.data.train->class_names());
}

}  // namespace qtrain::cli
