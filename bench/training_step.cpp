// Times training steps (forward, backward, SGD with momentum) on synthetic data in memory and prints one JSON
// line:
//   training_step MODEL IMAGE_SIZE BATCH QUANTIZER BITS [STEPS [PROFILE]]
// QUANTIZER `none` is float32; `xnor:padding_after_quant=true` sets an option of activations. One without one
// of the roles weight and activation leaves that side in float, and one that can't do BITS takes the nearest
// number that it can. Figures: median milliseconds a step, images/s, peak resident megabytes, peak of the
// tensors' own memory, and allocations from the system after the second step.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/rng.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/loss.h"
#include "engine/optim/sgd.h"
#include "quant/wrap.h"
#include "zoo/registry.h"

namespace {

using qtrain::Tensor;

Tensor random_images(const qtrain::Shape& shape) {
  qtrain::RandomStream random(1, qtrain::RandomPurpose::user);
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  for (float& v : values) v = static_cast<float>(random.normal());
  return Tensor::from_values(shape, values);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: training_step MODEL IMAGE_SIZE BATCH QUANTIZER BITS [STEPS [unfused]]\n");
    return 2;
  }
  const std::string model_name = argv[1];
  const std::int64_t side = std::atoll(argv[2]);
  const std::int64_t batch = std::atoll(argv[3]);
  const std::string asked = argv[4];
  const std::size_t colon = asked.find(':');
  const std::string quantizer = asked.substr(0, colon);
  const int bits = std::atoi(argv[5]);
  const int steps = argc > 6 ? std::atoi(argv[6]) : 20;

  const auto model = qtrain::zoo::make_model(model_name);
  qtrain::quant::WrapOptions wrap;
  using qtrain::quant::Role;
  const auto& info = qtrain::quant::find_quantizer(quantizer);
  wrap.weight_quantizer = info.has_role(Role::weight) ? quantizer : "none";
  wrap.activation_quantizer = info.has_role(Role::activation) ? quantizer : "none";
  wrap.weight_bits = std::max(qtrain::quant::nearest_bits(info, Role::weight, bits), 1);
  wrap.activation_bits = std::max(qtrain::quant::nearest_bits(info, Role::activation, bits), 1);
  if (colon != std::string::npos) {
    const std::size_t equals = asked.find('=', colon);
    wrap.activation_options[asked.substr(colon + 1, equals - colon - 1)] = asked.substr(equals + 1);
  }
  wrap.fuse = argc <= 7 || std::string(argv[7]) != "unfused";
  qtrain::quant::quantize_network(*model, wrap);
  qtrain::SGD optimizer({{.parameters = model->named_parameters(), .weight_decay = 1e-4}},
                        {.learning_rate = 0.01, .momentum = 0.9});

  const Tensor images = random_images({batch, 3, side, side});
  std::vector<std::int64_t> classes(static_cast<std::size_t>(batch));
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i % 10);
  const Tensor labels = Tensor::from_values<std::int64_t>({batch}, classes);

  std::vector<double> times;
  std::size_t allocations_after_two = 0;
  auto& allocator = qtrain::backend({}).allocator();
  for (int step = 0; step < steps + 3; ++step) {
    const auto start = std::chrono::steady_clock::now();
    Tensor loss = qtrain::softmax_cross_entropy(model->forward(images), labels);
    const Tensor added = qtrain::quant::take_quantization_loss(*model);
    if (added.defined()) loss = qtrain::add(loss, added);
    qtrain::Tape::backward(loss);
    qtrain::quant::before_update(*model);
    optimizer.step();
    qtrain::quant::after_update(*model);
    optimizer.zero_grad();
    if (step >= 3) times.push_back(seconds_since(start));
    if (step == 1) allocations_after_two = allocator.statistics().system_allocations;
  }
  std::ranges::sort(times);
  const double median = times[times.size() / 2];
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto memory = allocator.statistics();
  std::printf(
      "{\"model\": \"%s\", \"size\": %lld, \"batch\": %lld, \"quantizer\": \"%s\", \"ms\": %.2f, \"ms_min\": "
      "%.2f, \"ms_max\": %.2f, \"images_per_second\": %.1f, "
      "\"peak_rss_mb\": %.0f, \"peak_tensors_mb\": %.0f, \"system_allocations_after_step_2\": %zu}\n",
      model_name.c_str(), static_cast<long long>(side), static_cast<long long>(batch), asked.c_str(),
      median * 1e3, times.front() * 1e3, times.back() * 1e3, static_cast<double>(batch) / median,
      static_cast<double>(usage.ru_maxrss) / 1024, static_cast<double>(memory.peak_in_use) / 1048576,
      memory.system_allocations - allocations_after_two);
  return 0;
}
