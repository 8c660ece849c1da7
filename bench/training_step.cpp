// Times training steps (forward, backward, SGD with momentum) on synthetic data in memory and prints one JSON
// line:
//   training_step MODEL IMAGE_SIZE BATCH QUANTIZER BITS [STEPS] [--device cpu|cuda] [--warm-up N]
//                 [--precision fp32|tf32|bf16] [--no-fuse] [--graph] [--autotune]
// QUANTIZER `none` is float32; `xnor:padding_after_quant=true` sets an option of activations. One without one
// of the roles weight and activation leaves that side in float, and one that can't do BITS takes the nearest
// number that it can. Figures: median milliseconds a step, images/s, peak resident megabytes, peak of the
// tensors' own memory on the device during the timed steps, and allocations from the system after the second
// step.
//
// --no-fuse keeps quantizers apart from the batch norms before them; --graph records the step and replays it.
//
// A GPU runs behind the host, and to wait for it after every step would leave it idle while the host queues
// the next one. So steps are timed there in a few windows; at each window's end the host reads the loss,
// once.
#include <cstdio>
#include <string>
#include <vector>

#include "bench/arguments.h"
#include "bench/measure.h"
#include "engine/autograd/tape.h"
#include "engine/backend/settings.h"
#include "engine/backend/step_graph.h"
#include "engine/core/host_read.h"
#include "engine/core/rng.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/cast.h"
#include "engine/ops/loss.h"
#include "engine/optim/sgd.h"
#include "quant/wrap.h"
#include "zoo/registry.h"

namespace {

using qtrain::Device;
using qtrain::DeviceType;
using qtrain::DType;
using qtrain::Tensor;

struct Settings {
  std::string model;
  std::int64_t side = 0;
  std::int64_t batch = 0;
  std::string quantizer;
  int bits = 0;
  int steps = 20;
  int warm_up = 3;
  Device device;
  std::string precision;
  bool fuse = true;
  bool graph = false;
  bool autotune = false;  // libraries may measure their implementations of a convolution
};

Settings parse(int argc, char** argv) {
  qtrain::bench::Arguments arguments(argc, argv);
  Settings s;
  s.device = arguments.device();
  // A GPU's clocks settle, and libraries measure and choose, in the first steps.
  const bool on_cpu = s.device.type == DeviceType::cpu;
  s.warm_up =
      static_cast<int>(qtrain::bench::Arguments::parse(arguments.option("warm-up", on_cpu ? "3" : "20")));
  s.precision = arguments.precision({"fp32", "tf32", "bf16"});
  s.fuse = arguments.choice("fuse", true);
  s.graph = arguments.choice("graph", false);
  s.autotune = arguments.choice("autotune", false);
  arguments.expect_words(5,
                         "training_step MODEL IMAGE_SIZE BATCH QUANTIZER BITS [STEPS] [--device cpu|cuda] "
                         "[--warm-up N] [--precision fp32|tf32|bf16] [--no-fuse] [--graph] [--autotune]");
  s.model = arguments.word(0);
  s.side = arguments.number(1, 0);
  s.batch = arguments.number(2, 0);
  s.quantizer = arguments.word(3);
  s.bits = static_cast<int>(arguments.number(4, 0));
  s.steps = static_cast<int>(arguments.number(5, on_cpu ? 20 : 50));
  return s;
}

qtrain::quant::WrapOptions wrap_options(const Settings& s) {
  using qtrain::quant::Role;
  const std::size_t colon = s.quantizer.find(':');
  const std::string name = s.quantizer.substr(0, colon);
  const auto& info = qtrain::quant::find_quantizer(name);
  qtrain::quant::WrapOptions wrap;
  wrap.fuse = s.fuse;
  wrap.weight_quantizer = info.has_role(Role::weight) ? name : "none";
  wrap.activation_quantizer = info.has_role(Role::activation) ? name : "none";
  wrap.weight_bits = std::max(qtrain::quant::nearest_bits(info, Role::weight, s.bits), 1);
  wrap.activation_bits = std::max(qtrain::quant::nearest_bits(info, Role::activation, s.bits), 1);
  if (colon != std::string::npos) {
    const std::size_t equals = s.quantizer.find('=', colon);
    wrap.activation_options[s.quantizer.substr(colon + 1, equals - colon - 1)] =
        s.quantizer.substr(equals + 1);
  }
  return wrap;
}

// At most 16 different images, over and over: the generator would need minutes for a thousand.
Tensor random_images(const qtrain::Shape& shape, Device device) {
  qtrain::RandomStream random(1, qtrain::RandomPurpose::user);
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  const std::size_t period = std::min(values.size(), static_cast<std::size_t>(16 * shape.numel() / shape[0]));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = i < period ? static_cast<float>(random.normal()) : values[i - period];
  return Tensor::from_values<float>(shape, values, device);
}

Tensor ten_classes(std::int64_t batch, Device device) {
  std::vector<std::int64_t> classes(static_cast<std::size_t>(batch));
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i % 10);
  return Tensor::from_values<std::int64_t>({batch}, classes, device);
}

std::shared_ptr<qtrain::Module> make_network(const Settings& s) {
  auto model = qtrain::zoo::make_model(s.model);
  qtrain::quant::quantize_network(*model, wrap_options(s));
  model->to(s.device);
  return model;
}

class TrainingStep {
 public:
  explicit TrainingStep(const Settings& s)
      : model_(make_network(s)),
        optimizer_({{.parameters = model_->named_parameters(), .weight_decay = 1e-4}},
                   {.learning_rate = 0.01, .momentum = 0.9}),
        images_(random_images({s.batch, 3, s.side, s.side}, s.device)),
        labels_(ten_classes(s.batch, s.device)),
        dtype_(s.precision == "bf16" ? DType::bf16 : DType::f32),
        graph_(qtrain::backend(s.device), s.graph) {}

  void queue() {
    optimizer_.prepare_step();
    graph_.run({}, [this] { return run(); });
  }

  // Waits for all steps, and returns the last one's loss.
  float finish() const { return loss_.item(); }

 private:
  qtrain::StepGraph::Report run() {
    const Tensor logits = model_->forward(qtrain::cast(images_, dtype_));
    loss_ = qtrain::softmax_cross_entropy(qtrain::cast(logits, DType::f32), labels_);
    const Tensor added = qtrain::quant::take_quantization_loss(*model_);
    if (added.defined()) loss_ = qtrain::add(loss_, added);
    qtrain::Tape::backward(loss_);
    qtrain::quant::before_update(*model_);
    const bool repeats = optimizer_.apply();
    qtrain::quant::after_update(*model_);
    optimizer_.zero_grad();
    return {.repeats = repeats};
  }

  std::shared_ptr<qtrain::Module> model_;
  qtrain::SGD optimizer_;
  Tensor images_;
  Tensor labels_;
  DType dtype_;
  Tensor loss_;
  qtrain::StepGraph graph_;
};

// The seconds a step takes, one value a window.
std::vector<double> time_steps(TrainingStep& step, const Settings& s) {
  constexpr int windows = 5;
  const int window = s.device.type == DeviceType::cpu ? 1 : std::max(s.steps / windows, 1);
  std::vector<double> times;
  for (int done = 0; done < s.steps; done += window) {
    const double seconds = qtrain::bench::seconds_of([&] {
      for (int i = 0; i < window; ++i) step.queue();
      step.finish();
    });
    times.push_back(seconds / window);
  }
  return times;
}

void measure(const Settings& s) {
  using qtrain::MathMode;
  qtrain::configure(
      s.device, {.math = s.precision == "tf32" ? MathMode::tf32 : MathMode::fp32, .autotune = s.autotune});
  TrainingStep step(s);
  auto& allocator = qtrain::backend(s.device).allocator();
  std::size_t allocations_after_two = 0;
  for (int i = 0; i < s.warm_up; ++i) {
    step.queue();
    if (i < 2) allocations_after_two = allocator.statistics().system_allocations;
  }
  step.finish();
  allocator.reset_peak();
  const std::uint64_t reads = qtrain::host_read_count();
  const std::uint64_t waits = qtrain::device_synchronization_count();
  const std::vector<double> times = time_steps(step, s);
  const std::uint64_t reads_in_steps = qtrain::host_read_count() - reads - times.size();
  const std::uint64_t expected_waits = s.device.type == DeviceType::cpu ? 0 : times.size();
  const std::uint64_t waits_in_steps = qtrain::device_synchronization_count() - waits - expected_waits;
  const auto spread = qtrain::bench::spread_of(times);
  const auto memory = allocator.statistics();
  std::printf(
      "{\"model\": \"%s\", \"size\": %lld, \"batch\": %lld, \"quantizer\": \"%s\", \"device\": \"%s\", "
      "\"precision\": \"%s\", \"fuse\": %s, \"graph\": %s, \"ms\": %.3f, \"ms_min\": %.3f, \"ms_max\": %.3f, "
      "\"images_per_second\": %.1f, "
      "\"peak_rss_mb\": %.0f, "
      "\"peak_tensors_mb\": %.1f, \"reserved_mb\": %.1f, \"system_allocations_after_step_2\": %zu, "
      "\"host_reads_in_steps\": %llu, \"device_waits_in_steps\": %llu, \"loss\": %g}\n",
      s.model.c_str(), static_cast<long long>(s.side), static_cast<long long>(s.batch), s.quantizer.c_str(),
      s.device.str().c_str(), s.precision.c_str(), s.fuse ? "true" : "false", s.graph ? "true" : "false",
      spread.median * 1e3, spread.min * 1e3, spread.max * 1e3, static_cast<double>(s.batch) / spread.median,
      qtrain::bench::peak_rss_mb(), static_cast<double>(memory.peak_in_use) / 1048576,
      static_cast<double>(memory.reserved) / 1048576, memory.system_allocations - allocations_after_two,
      static_cast<unsigned long long>(reads_in_steps), static_cast<unsigned long long>(waits_in_steps),
      static_cast<double>(step.finish()));
}

}  // namespace

int main(int argc, char** argv) try {
  measure(parse(argc, argv));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "training_step: %s\n", error.what());
  return 2;
}
