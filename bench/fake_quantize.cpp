// Memory bandwidth of sat's fake-quantizers, as a share of what plain passes reach on this machine in the
// same run. Prints one JSON line a tensor size:
//   fake_quantize [MEGABYTES [REPETITIONS]] [--device cpu|cuda] [--precision fp32|bf16]
// for a tensor with as many elements as so many megabytes of fp32 (256), then one of 1 MB, in cache.
// Bytes an element in fp32: forward 8 (reads x, writes y), backward 12 (reads x and dy, writes dx; alpha's
// gradient stays in registers). bf16, on GPUs only, is that of activations and takes half of them; weights
// stay fp32. Beside it plain passes (bench/streams.h): on the CPU scale (b = s a) and add (c = a + b), on a
// GPU copies of as many bytes. The four alternate, so that disturbances meet all of them.
#include <omp.h>

#include <cstdio>

#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/streams.h"
#include "engine/ops/cast.h"
#include "quant/registry.h"

namespace {

using qtrain::Device;
using qtrain::DType;
using qtrain::Tensor;
using qtrain::bench::PlainPasses;
using qtrain::bench::Spread;
using qtrain::bench::spread_of;
using qtrain::bench::time_passes;
using qtrain::bench::uniform;

struct Times {
  std::vector<double> copy_loop, add_loop, forward, backward, weight_forward, weight_backward;
};

void time_quantizer(qtrain::quant::Quantizer& quantizer, Tensor& x, const Tensor& gradient, int inner,
                    std::vector<double>& forward, std::vector<double>& backward) {
  const auto seconds = qtrain::bench::time_quantizer(quantizer, x, gradient, inner);
  forward.push_back(seconds.forward);
  backward.push_back(seconds.backward);
}

void measure(std::int64_t n, int repetitions, int inner, Device device, DType dtype) {
  using qtrain::quant::LayerKind;
  using qtrain::quant::Role;
  const auto activation = qtrain::quant::make_quantizer("sat", Role::activation, 4, LayerKind::convolution);
  const auto weight = qtrain::quant::make_quantizer("sat", Role::weight, 4, LayerKind::convolution);
  activation->to(device);
  weight->to(device);
  // A quarter below 0, half inside, a quarter above alpha = 8.
  Tensor x = qtrain::cast(uniform({n}, -4.0F, 12.0F, device), dtype);
  Tensor w = uniform({n}, -1.0F, 1.0F, device);
  const Tensor weight_gradient = uniform({n}, -1.0F, 1.0F, device);
  const Tensor gradient = qtrain::cast(weight_gradient, dtype);
  const PlainPasses plain(x, gradient);
  x.set_requires_grad(true);
  w.set_requires_grad(true);

  Times t;
  for (int r = 0; r < repetitions + 1; ++r) {
    if (r == 1) t = {};  // the first touches every page
    t.copy_loop.push_back(time_passes(device, inner, [&] { plain.forward(); }));
    t.add_loop.push_back(time_passes(device, inner, [&] { plain.backward(); }));
    time_quantizer(*activation, x, gradient, inner, t.forward, t.backward);
    if (r <= 3) time_quantizer(*weight, w, weight_gradient, inner, t.weight_forward, t.weight_backward);
  }

  const auto speed = [](const std::vector<double>& seconds, std::int64_t bytes) {
    return static_cast<double>(bytes) / spread_of(seconds).median / 1e9;
  };
  // Shares are medians of the repetitions' own: both loops of one repetition saw the same machine.
  const auto share = [](const std::vector<double>& loop, const std::vector<double>& ours) {
    std::vector<double> shares(loop.size());
    for (std::size_t i = 0; i < loop.size(); ++i) shares[i] = loop[i] / ours[i];
    return spread_of(shares);
  };
  const Spread forward = share(t.copy_loop, t.forward);
  const Spread backward = share(t.add_loop, t.backward);
  std::printf(
      "{\"megabytes\": %.1f, \"device\": \"%s\", \"dtype\": \"%s\", \"threads\": %d, \"scale_gbs\": %.2f, "
      "\"add_gbs\": %.2f, "
      "\"forward_gbs\": %.2f, \"backward_gbs\": %.2f, "
      "\"forward_share\": %.3f, \"forward_share_min\": %.3f, \"forward_share_max\": %.3f, "
      "\"backward_share\": %.3f, \"backward_share_min\": %.3f, \"backward_share_max\": %.3f, "
      "\"weight_forward_gbs\": %.2f, \"weight_backward_gbs\": %.2f}\n",
      static_cast<double>(n * static_cast<std::int64_t>(size_of(dtype))) / 1048576, device.str().c_str(),
      std::string(name_of(dtype)).c_str(), omp_get_max_threads(), speed(t.copy_loop, plain.forward_bytes()),
      speed(t.add_loop, plain.backward_bytes()), speed(t.forward, plain.forward_bytes()),
      speed(t.backward, plain.backward_bytes()), forward.median, forward.min, forward.max, backward.median,
      backward.min, backward.max, speed(t.weight_forward, 8 * n), speed(t.weight_backward, 12 * n));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  qtrain::bench::Arguments arguments(argc, argv);
  const Device device = arguments.device();
  const DType dtype = arguments.precision({"fp32", "bf16"}) == "bf16" ? DType::bf16 : DType::f32;
  arguments.expect_words(
      0, "fake_quantize [MEGABYTES [REPETITIONS]] [--device cpu|cuda] [--precision fp32|bf16]");
  const std::int64_t megabytes = arguments.number(0, 256);
  const int repetitions = static_cast<int>(arguments.number(1, 9));
  qtrain::bench::flush_denormals();
  const bool on_cpu = device.type == qtrain::DeviceType::cpu;
  measure(megabytes * 1048576 / 4, repetitions, on_cpu ? 1 : 10, device, dtype);
  measure(1048576 / 4, repetitions, 100, device, dtype);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "fake_quantize: %s\n", error.what());
  return 2;
}
