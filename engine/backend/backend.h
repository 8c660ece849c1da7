// What a device must be able to do. Ops (engine/ops/) check their arguments, allocate their results and call
// these functions; nothing above this interface knows which vendor library does the work.
//
// Rules for every function: arguments are valid (the op has checked them); outputs are allocated by the
// caller; work is queued on `stream` and may still run when the function returns; temporary memory comes from
// the device's own allocator and is reused in stream order; nothing reads a device value on the host. Scalar
// math (activations, quantizers, optimizers) is not here: it is written once with the templates of
// engine/kernels/ and compiled for each device.
#pragma once

#include <memory>

#include "engine/backend/geometry.h"
#include "engine/core/allocator.h"
#include "engine/core/tensor.h"

namespace qtrain {

enum class CopyKind { host_to_device, device_to_host, device_to_device };

// Work of a device that was recorded, to be queued again with one call.
class DeviceGraph {
 public:
  DeviceGraph() = default;
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;
  virtual ~DeviceGraph() = default;

  virtual void launch(const Stream&) = 0;
};

// While it lives, what this thread queues on the stream is recorded and doesn't run. Without finish() it is
// forgotten.
class GraphRecording {
 public:
  GraphRecording() = default;
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;
  virtual ~GraphRecording() = default;

  virtual std::unique_ptr<DeviceGraph> finish() = 0;
};

class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  // -- the device
  // ----------------------------------------------------------------------------------------------
  virtual Device device() const = 0;
  virtual Allocator& allocator() = 0;
  virtual Stream stream() = 0;  // where this thread's work is queued
  virtual void copy(const Stream&, void* to, const void* from, std::size_t bytes, CopyKind) = 0;
  virtual void fill_zero(const Stream&, void* to, std::size_t bytes) = 0;
  virtual void synchronize(const Stream&) = 0;  // the host waits for the stream

  // Host memory that host_to_device copies read directly, where other memory is first copied on the host. It
  // may be overwritten only when it is idle: when no copy that has been queued still reads it. Released
  // memory is handed out again when it is idle. Thread-safe; the defaults are plain memory, always idle.
  virtual void* allocate_host(std::size_t bytes);
  virtual void release_host(void* memory) noexcept;
  virtual bool is_host_idle(const void* memory) const;

  // Whether work can be recorded (see step_graph.h). record_graph() throws DeviceError where it can't. A
  // host_to_device copy that is recorded copies at every launch what the host had at the time of recording.
  virtual bool has_graphs() const { return false; }
  virtual std::unique_ptr<GraphRecording> record_graph(const Stream& stream);

  // -- convolution: x [N, C, H, W], w [O, C/groups, kh, kw], bias [O] or undefined, y [N, O, oh, ow]
  // --------------
  virtual void convolution_forward(const Stream&, const ConvolutionGeometry&, const Tensor& x,
                                   const Tensor& w, const Tensor& bias, const Tensor& y) = 0;
  virtual void convolution_backward_data(const Stream&, const ConvolutionGeometry&, const Tensor& w,
                                         const Tensor& grad_y, const Tensor& grad_x) = 0;
  // grad_bias may be undefined.
  virtual void convolution_backward_weight(const Stream&, const ConvolutionGeometry&, const Tensor& x,
                                           const Tensor& grad_y, const Tensor& grad_w,
                                           const Tensor& grad_bias) = 0;

  // -- c = op(a) op(b) + bias, op = transpose where asked; a, b, c of rank 2, bias [columns of c] or
  // undefined ----
  virtual void matmul(const Stream&, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                      const Tensor& bias, const Tensor& c) = 0;

  // -- pooling: x [N, C, H, W], y [N, C, oh, ow]; indices: i32 [N, C, oh, ow], h * W + w of each maximum
  // -------------
  virtual void max_pool_forward(const Stream&, const PoolGeometry&, const Tensor& x, const Tensor& y,
                                const Tensor& indices) = 0;
  virtual void max_pool_backward(const Stream&, const PoolGeometry&, const Tensor& indices,
                                 const Tensor& grad_y, const Tensor& grad_x) = 0;
  virtual void average_pool_forward(const Stream&, const PoolGeometry&, const Tensor& x, const Tensor& y) = 0;
  virtual void average_pool_backward(const Stream&, const PoolGeometry&, const Tensor& grad_y,
                                     const Tensor& grad_x) = 0;
};

// The backend of a device; throws DeviceError where there is none.
Backend& backend(Device device);

// The devices this process can use, the CPU first.
std::vector<Device> available_devices();

// A device for messages: "cpu", or "cuda:0, NVIDIA H200, 139 GiB, compute 9.0".
std::string describe(Device device);

// Why this process has no GPU; "" where it has one.
std::string gpu_absence();

}  // namespace qtrain
