// Memory bandwidth of every quantizer of the registry, in each of its roles, and as a share of what plain
// passes (bench/streams.h) reach on this machine in the same run. Prints one JSON line a quantizer and role:
//   quantizers [MEGABYTES [REPETITIONS]] [--device cpu|cuda] [--precision fp32|bf16]
// on a tensor with as many elements as so many megabytes of fp32 (256). bf16, on GPUs only, is that of
// activations; weights stay fp32 and are left out.
// Bytes an element are those of an ideal single pass: forward 8 (reads x, writes y), backward 12 (reads x and
// dy, writes dx). A quantizer that measures its tensor first reads it twice and can't reach them all.
#include <omp.h>

#include <cstdio>

#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/streams.h"
#include "engine/autograd/tape.h"
#include "engine/ops/cast.h"
#include "quant/registry.h"

namespace {

using qtrain::Device;
using qtrain::DType;
using qtrain::Shape;
using qtrain::Tensor;
using qtrain::bench::PlainPasses;
using qtrain::bench::Spread;
using qtrain::bench::spread_of;
using qtrain::bench::time_passes;
using qtrain::quant::LayerKind;
using qtrain::quant::QuantizerInfo;
using qtrain::quant::Role;

constexpr std::int64_t channels = 256;

// Weights have an output channel for each of the 256 groups; the rest is one large batch of images.
Shape shape_of(Role role, std::int64_t n) {
  if (role == Role::bias) return {n};
  if (role == Role::weight) return {channels, n / channels / 16, 4, 4};
  return {n / channels / 64, channels, 8, 8};
}

Shape layer_shape(Role role, std::int64_t n) {
  return role == Role::weight || role == Role::bias ? shape_of(role, n) : Shape{1, channels, 1, 1};
}

// Half of the activations are negative or beyond a clip at 1.
Tensor values_for(Role role, std::int64_t n, Device device) {
  const bool weight = role == Role::weight || role == Role::bias;
  return qtrain::bench::uniform(shape_of(role, n), weight ? -1.0F : -0.5F, weight ? 1.0F : 1.5F, device);
}

void measure(const QuantizerInfo& info, Role role, std::int64_t n, int repetitions, Device device,
             DType dtype) {
  const int bits = qtrain::quant::nearest_bits(info, role, 4);
  const auto quantizer =
      qtrain::quant::make_quantizer(info.name, role, bits, LayerKind::convolution, {}, layer_shape(role, n));
  quantizer->to(device);
  Tensor x = qtrain::cast(values_for(role, n, device), dtype);
  const Tensor gradient = qtrain::cast(qtrain::bench::uniform(x.shape(), -1.0F, 1.0F, device), dtype);
  const PlainPasses plain(x, gradient);
  const int inner = device.type == qtrain::DeviceType::cpu ? 1 : 10;
  x.set_requires_grad(true);
  std::vector<double> forward_gbs, backward_gbs, forward_share, backward_share;
  for (int r = 0; r < repetitions + 1; ++r) {
    const double scale_loop = time_passes(device, inner, [&] { plain.forward(); });
    const double add_loop = time_passes(device, inner, [&] { plain.backward(); });
    const auto [forward, backward] = qtrain::bench::time_quantizer(*quantizer, x, gradient, inner);
    if (r == 0) continue;  // the first touches every page, and sets parameters that the first batch decides
    forward_gbs.push_back(static_cast<double>(plain.forward_bytes()) / forward / 1e9);
    backward_gbs.push_back(static_cast<double>(plain.backward_bytes()) / backward / 1e9);
    forward_share.push_back(scale_loop / forward);
    backward_share.push_back(add_loop / backward);
  }
  const Spread forward = spread_of(forward_share);
  const Spread backward = spread_of(backward_share);
  std::printf(
      "{\"quantizer\": \"%s\", \"role\": \"%s\", \"bits\": %d, \"megabytes\": %.0f, \"device\": \"%s\", "
      "\"dtype\": \"%s\", "
      "\"threads\": %d, "
      "\"forward_gbs\": %.2f, \"backward_gbs\": %.2f, \"forward_share\": %.3f, \"backward_share\": %.3f}\n",
      info.name.c_str(), std::string(name_of(role)).c_str(), bits,
      static_cast<double>(n * static_cast<std::int64_t>(size_of(dtype))) / 1048576, device.str().c_str(),
      std::string(name_of(dtype)).c_str(), omp_get_max_threads(), spread_of(forward_gbs).median,
      spread_of(backward_gbs).median, forward.median, backward.median);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  qtrain::bench::Arguments arguments(argc, argv);
  const Device device = arguments.device();
  const DType dtype = arguments.precision({"fp32", "bf16"}) == "bf16" ? DType::bf16 : DType::f32;
  arguments.expect_words(0,
                         "quantizers [MEGABYTES [REPETITIONS]] [--device cpu|cuda] [--precision fp32|bf16]");
  const std::int64_t megabytes = arguments.number(0, 256);
  const int repetitions = static_cast<int>(arguments.number(1, 5));
  qtrain::bench::flush_denormals();
  for (const QuantizerInfo* info : qtrain::quant::quantizers()) {
    if (info->name == "none") continue;
    for (const Role role : info->roles)
      if (dtype == DType::f32 || role == Role::activation)
        measure(*info, role, megabytes * 1048576 / 4, repetitions, device, dtype);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "quantizers: %s\n", error.what());
  return 2;
}
