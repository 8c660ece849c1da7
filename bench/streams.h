// The plain passes that a quantizer's are compared with, and the time of both.
#pragma once

#include "bench/measure.h"
#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "quant/quantizer.h"

namespace qtrain::bench {

// b = s a, and c = a + b, with ordinary stores, as in STREAM.
inline void scale(std::int64_t n, float factor, const float* a, float* b) {
#pragma omp parallel for simd schedule(static)
  for (std::int64_t i = 0; i < n; ++i) b[i] = factor * a[i];
}

inline void add(std::int64_t n, const float* a, const float* b, float* c) {
#pragma omp parallel for simd schedule(static)
  for (std::int64_t i = 0; i < n; ++i) c[i] = a[i] + b[i];
}

// Uniform in (low, high), from a multiplicative hash: a counter-based generator would take minutes here.
inline Tensor uniform(const Shape& shape, float low, float high, Device device = {}) {
  Tensor t = Tensor::empty(shape);
  auto* values = t.data<float>();
  const std::int64_t n = t.numel();
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t hash = static_cast<std::uint32_t>(i + 1) * 2654435761U;
    values[i] = low + (high - low) * static_cast<float>(hash >> 8U) / 16777216.0F;
  }
  return t.to(device);
}

// The seconds of work that is queued on a device, until the device has done it.
template <class F>
double seconds_on(Device device, F&& work) {
  Backend& b = backend(device);
  b.synchronize(b.stream());
  return seconds_of([&] {
    work();
    b.synchronize(b.stream());
  });
}

// Passes that move the bytes of a quantizer's ideal ones and compute next to nothing. On the CPU, which has
// them for f32, scale and add with the quantizer's own streams; on a GPU a copy from device to device of as
// many bytes, half of them read and half written.
class PlainPasses {
 public:
  PlainPasses(const Tensor& x, const Tensor& gradient)
      : n_(x.numel()),
        element_(static_cast<std::int64_t>(size_of(x.dtype()))),
        device_(x.device()),
        a_(x),
        b_(gradient),
        out_(uniform(x.shape(), 0.0F, 1.0F)) {
    if (on_cpu()) return;
    const Shape half_of_all{backward_bytes() / 2 / 4};
    a_ = uniform(half_of_all, -1.0F, 1.0F, device_);
    out_ = Tensor::zeros(half_of_all, DType::f32, device_);
  }

  std::int64_t forward_bytes() const { return 2 * n_ * element_; }   // x read, y written
  std::int64_t backward_bytes() const { return 3 * n_ * element_; }  // x and dy read, dx written

  void forward() const {
    if (on_cpu())
      scale(n_, 1.5F, a_.data<float>(), out_.data<float>());
    else
      copy(forward_bytes() / 2);
  }
  void backward() const {
    if (on_cpu())
      add(n_, a_.data<float>(), b_.data<float>(), out_.data<float>());
    else
      copy(backward_bytes() / 2);
  }

 private:
  bool on_cpu() const { return device_.type == DeviceType::cpu; }
  void copy(std::int64_t bytes) const {
    Backend& b = backend(device_);
    b.copy(b.stream(), out_.raw(), a_.raw(), static_cast<std::size_t>(bytes), CopyKind::device_to_device);
  }

  std::int64_t n_;
  std::int64_t element_;
  Device device_;
  Tensor a_;
  Tensor b_;
  Tensor out_;
};

struct PassSeconds {
  double forward = 0;
  double backward = 0;
};

// The mean seconds of `inner` passes in a row.
template <class F>
double time_passes(Device device, int inner, F&& pass) {
  return seconds_on(device,
                    [&] {
                      for (int i = 0; i < inner; ++i) pass();
                    }) /
         inner;
}

// The mean seconds of quantizer(x) and of its backward. The CPU does them in turn, as training does. A GPU
// gets `inner` forwards, then their backwards, so that the time to queue one hides behind the work of
// another.
inline PassSeconds time_quantizer(quant::Quantizer& quantizer, Tensor& x, const Tensor& gradient, int inner) {
  const int together = x.device().type == DeviceType::cpu ? 1 : inner;
  const std::vector<Tensor> parameters = quantizer.parameters();
  std::vector<Tensor> results(static_cast<std::size_t>(together));
  PassSeconds total;
  for (int done = 0; done < inner; done += together) {
    total.forward += seconds_on(x.device(), [&] {
      for (Tensor& y : results) y = quantizer.forward(x);
    });
    total.backward += seconds_on(x.device(), [&] {
      for (Tensor& y : results) {
        Tape::backward(y, gradient);
        x.set_grad({});
        for (const Tensor& p : parameters) p.set_grad({});
      }
    });
  }
  return {total.forward / inner, total.backward / inner};
}

}  // namespace qtrain::bench
