#include "engine/ops/batch_norm_fusion.h"

#include "engine/backend/backend.h"
#include "engine/core/error.h"

namespace qtrain {
namespace {

void require_unchanged(const Tensor& t, std::uint64_t version, const char* name) {
  if (t.defined() && t.storage_version() != version)
    throw AutogradError({.where = "batch_norm",
                         .what = std::string(name) + " was changed in place before the output was computed",
                         .got = "",
                         .expected = "",
                         .hint = "read the output first"});
}

}  // namespace

Tensor DeferredBatchNorm::output(const BatchNormOutput& of, std::shared_ptr<BatchNormFusion> fusion) {
  const auto work = std::make_shared<DeferredBatchNorm>();
  work->of_ = of;
  work->of_.x = of.x.detach();  // the elements, not the tape behind them
  work->x_version_ = of.x.storage_version();
  if (of.residual.defined()) {
    work->of_.residual = of.residual.detach();
    work->residual_version_ = of.residual.storage_version();
  }
  work->fusion_ = std::move(fusion);
  Tensor y = Tensor::deferred(of.x.shape(), of.x.dtype(), of.x.device(), work);
  work->y_ = Owed(y);
  return y;
}

const BatchNormOutput& DeferredBatchNorm::of() const {
  require_unchanged(of_.x, x_version_, "x");
  require_unchanged(of_.residual, residual_version_, "the residual");
  return of_;
}

void DeferredBatchNorm::compute() {
  if (fused_) fusion_->output_needed = true;
  const BatchNormOutput& recipe = of();
  const Tensor y = y_.receive();
  if (y.defined()) batch_norm_output(backend(y.device()).stream(), recipe, y);
}

Tensor DeferredBatchNorm::output_in_same_pass() {
  fused_ = true;
  return fusion_->output_needed ? y_.receive() : Tensor();
}

std::shared_ptr<DeferredBatchNorm> fusable_batch_norm(const Tensor& y) {
  return std::dynamic_pointer_cast<DeferredBatchNorm>(y.pending());
}

}  // namespace qtrain
