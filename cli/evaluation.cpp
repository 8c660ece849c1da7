#include "cli/evaluation.h"

#include <algorithm>

#include "engine/autograd/tape.h"
#include "engine/ops/cast.h"
#include "engine/ops/loss.h"

namespace qtrain::cli {
namespace {

class EvaluationMode {
 public:
  explicit EvaluationMode(Module& network) : network_(network), before_(network.is_training()) {
    network_.evaluate();
  }
  ~EvaluationMode() { network_.train(before_); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  Module& network_;
  bool before_;
};

// Unreadable samples were replaced by others; here, where order is that of the data set, those show. `place`:
// of the batch's first sample among those of this process.
void drop_replacements(data::Batch& batch, const data::EpochOrder& order, std::size_t place) {
  const auto count = static_cast<std::size_t>(batch.count);
  const std::size_t pixels = (batch.bytes.size() + batch.floats.size()) / std::max<std::size_t>(1, count);
  std::size_t kept = 0;
  const auto move_values = [&](auto& values, std::size_t from) {
    if (!values.empty() && from != kept)
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(from * pixels), pixels,
                  values.begin() + static_cast<std::ptrdiff_t>(kept * pixels));
  };
  for (std::size_t i = 0; i < count; ++i) {
    if (batch.indices[i] != static_cast<std::int64_t>(order(place + i))) continue;
    move_values(batch.bytes, i);
    move_values(batch.floats, i);
    batch.labels[kept] = batch.labels[i];
    ++kept;
  }
  if (!batch.bytes.empty()) batch.bytes.resize(kept * pixels);
  if (!batch.floats.empty()) batch.floats.resize(kept * pixels);
  batch.labels.resize(kept);
  batch.count = static_cast<int>(kept);
}

// Results of batches, left on the device until enough have come together.
class Totals {
 public:
  void add(const Tensor& logits, const Tensor& labels, std::int64_t count) {
    const std::int64_t classes = logits.dim(1);
    pending_.push_back({softmax_cross_entropy(logits, labels), count_top_k(logits, labels, 1),
                        count_top_k(logits, labels, std::min<std::int64_t>(5, classes)), count});
    if (pending_.size() >= most_pending) read();
  }

  EvaluationResult result() {
    read();
    const auto n = static_cast<double>(std::max<std::int64_t>(1, images_));
    return {.means = {.loss = loss_ / n, .top1 = top1_ / n, .top5 = top5_ / n}, .images = images_};
  }

 private:
  static constexpr std::size_t most_pending = 64;
  struct Pending {
    Tensor loss;
    Tensor top1;
    Tensor top5;
    std::int64_t count;
  };

  void read() {
    for (const Pending& p : pending_) {
      loss_ += static_cast<double>(p.loss.item()) * static_cast<double>(p.count);
      top1_ += static_cast<double>(p.top1.item());
      top5_ += static_cast<double>(p.top5.item());
      images_ += p.count;
    }
    pending_.clear();
  }

  std::vector<Pending> pending_;
  double loss_ = 0;
  double top1_ = 0;
  double top5_ = 0;
  std::int64_t images_ = 0;
};

}  // namespace

std::optional<EvaluationResult> evaluate(Module& network, data::Loader& loader,
                                         const Normalization& normalization, Device device,
                                         const EvaluationProgress& progress) {
  const EvaluationMode mode(network);
  const NoGradGuard no_grad;
  Totals totals;
  data::Batch batch;
  std::int64_t batches = 0;
  loader.start_epoch(0);
  for (std::size_t place = 0; loader.next(batch);) {
    const std::size_t first = place;
    place += batch.labels.size();
    drop_replacements(batch, loader.order(), first);
    if (batch.count > 0) {
      const DeviceBatch input = to_device(batch, normalization, device);
      totals.add(cast(network(input.images), DType::f32), input.labels, input.count);
    }
    if (progress && !progress(++batches)) return std::nullopt;
  }
  return totals.result();
}

}  // namespace qtrain::cli
