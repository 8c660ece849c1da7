#include "cli/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/model_setup.h"
#include "engine/backend/backend.h"
#include "engine/kernels/parallel.h"
#include "quant/wrap.h"

namespace qtrain::cli {
namespace {

std::string quantizer_text(const Session& session) {
  const TrainOptions& o = session.options;
  const quant::WrapOptions wrap = wrap_options(o);
  if (session.quantized_layers.empty()) return "none, a float run";
  const auto part = [](const std::string& quantizer, int bits) {
    return quantizer == "none" ? "float" : fmt::format("{} {} bits", quantizer, bits);
  };
  std::string text =
      fmt::format("weights {}, activations {}; {} layers", part(wrap.weight_quantizer, wrap.weight_bits),
                  part(wrap.activation_quantizer, wrap.activation_bits), session.quantized_layers.size());
  for (const auto& [key, value] : o.set) text += fmt::format(", {}={}", key, value);
  return text;
}

std::string init_text(const TrainOptions& o, const LoadReport& report) {
  const auto listed = [](const std::vector<std::string>& names) {
    constexpr std::size_t shown = 3;
    std::string text = std::to_string(names.size());
    for (std::size_t i = 0; i < std::min(shown, names.size()); ++i) text += (i == 0 ? ": " : ", ") + names[i];
    return names.size() > shown ? text + ", ..." : text;
  };
  std::string text = fmt::format("{}: {} tensors", o.init, report.loaded);
  if (!report.missing.empty()) text += "; missing in it " + listed(report.missing);
  if (!report.unexpected.empty()) text += "; not in the network " + listed(report.unexpected);
  return text;
}

}  // namespace

std::string count_text(std::int64_t count) {
  const auto n = static_cast<double>(count);
  if (n >= 1e6) return fmt::format("{:.1f} million", n / 1e6);
  return n >= 1e4 ? fmt::format("{:.0f} thousand", n / 1e3) : std::to_string(count);
}

std::string bytes_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  return bytes >= 1e6 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.1f} kB", bytes / 1e3);
}

std::string header_text(const Session& session, const RunFolder& folder, const RunState& state) {
  const TrainOptions& o = session.options;
  std::string text = fmt::format("model      {}, {} classes, {} parameters\n", o.model,
                                 o.num_classes.value_or(0), count_text(session.network->parameter_count()));
  if (session.init) text += fmt::format("init       {}\n", init_text(o, *session.init));
  text += fmt::format("quantizer  {}\n", quantizer_text(session));
  text += fmt::format(
      "data       {}: {} training and {} validation images at {}x{}, augment {}, normalize {}\n",
      session.data.spec, session.data.train->size(), session.data.validation->size(), session.data.image_size,
      session.data.image_size, session.data.augment, session.data.normalization.name);
  if (o.world_size > 1)
    text += fmt::format("           this process loads part {} of {}\n", o.rank + 1, o.world_size);
  text += fmt::format("training   {} epochs of {} steps, batch size {}, {} lr {:.4g} {}, seed {}\n", o.epochs,
                      session.steps_per_epoch(), o.batch_size, o.optimizer, o.lr, o.schedule, o.seed);
  text += fmt::format("device     {}{}, {} threads, {} loader workers\n", describe(session.device),
                      o.precision == "fp32" ? "" : ", " + o.precision, thread_count(), o.workers);
  text += fmt::format("output     {}", folder.path().string());
  if (state.step > 0)
    text += fmt::format("\nresuming   after step {}: epoch {}, {} of {} steps done", state.step,
                        state.epoch + 1, state.batches, session.steps_per_epoch());
  return text;
}

std::string summary_text(const Session& session, const RunFolder& folder, const RunResult& result) {
  std::string text;
  if (result.validation)
    text +=
        fmt::format("result      top-1 {:.2f}%, top-5 {:.2f}%, loss {:.4f}", 100 * result.validation->top1,
                    100 * result.validation->top5, result.validation->loss);
  if (result.state.best_top1 >= 0)
    text += fmt::format("{}best top-1 {:.2f}% in epoch {}", text.empty() ? "result      " : "; ",
                        100 * result.state.best_top1, result.state.best_epoch);
  text += fmt::format("{}time        {}, training at {:.0f} img/s, {:.1f}% of it waiting for data\n",
                      text.empty() ? "" : "\n", duration_text(result.state.seconds), result.training.rate(),
                      100 * result.training.wait_share());
  const quant::ModelSize size = quant::model_size(*session.network);
  text += fmt::format("model size  {} in float", bytes_text(static_cast<double>(size.float_bytes)));
  if (size.quantized_bytes != size.float_bytes)
    text += fmt::format(", {} with quantized weights ({:.1f}x smaller)",
                        bytes_text(static_cast<double>(size.quantized_bytes)),
                        static_cast<double>(size.float_bytes) / static_cast<double>(size.quantized_bytes));
  const MemoryStatistics memory = backend(session.device).allocator().statistics();
  text += fmt::format("\nmemory      {} at most in tensors\n",
                      bytes_text(static_cast<double>(memory.peak_in_use)));
  const std::size_t bad = session.training->bad_count() + session.validation->bad_count();
  if (bad > 0) {
    text += fmt::format("bad images  {} skipped", bad);
    for (const data::Loader* loader : {session.training.get(), session.validation.get()})
      for (const data::BadImage& image : loader->bad_images()) text += "\n            " + image.reason;
    text += "\n";
  }
  const bool has_best = result.state.best_top1 >= 0;
  text += fmt::format("checkpoint  {}", (has_best ? folder.best() : folder.last()).string());
  return text;
}

}  // namespace qtrain::cli
