// The CUDA backend: cuDNN for convolutions, cuBLASLt for matrix products, our own kernels for the rest. One
// stream takes all work of a process in its order, so memory that is freed may be handed out again at once:
// whatever uses it next is queued behind what used it before. One file an op family: convolution.cpp,
// matmul.cpp, pool_kernels.cpp.
//
// No vendor header is needed to include this one.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/settings.h"

namespace qtrain {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int index);
  ~CudaBackend() override;

  Device device() const override { return {DeviceType::cuda, index_}; }
  Allocator& allocator() override;
  Stream stream() override;
  void copy(const Stream&, void* to, const void* from, std::size_t bytes, CopyKind) override;
  void fill_zero(const Stream&, void* to, std::size_t bytes) override;
  void synchronize(const Stream&) override;
  void* allocate_host(std::size_t bytes) override;  // page-locked
  void release_host(void* memory) noexcept override;
  bool is_host_idle(const void* memory) const override;
  bool has_graphs() const override { return true; }
  std::unique_ptr<GraphRecording> record_graph(const Stream& stream) override;

  void convolution_forward(const Stream&, const ConvolutionGeometry&, const Tensor& x, const Tensor& w,
                           const Tensor& bias, const Tensor& y) override;
  void convolution_backward_data(const Stream&, const ConvolutionGeometry&, const Tensor& w,
                                 const Tensor& grad_y, const Tensor& grad_x) override;
  void convolution_backward_weight(const Stream&, const ConvolutionGeometry&, const Tensor& x,
                                   const Tensor& grad_y, const Tensor& grad_w,
                                   const Tensor& grad_bias) override;

  void matmul(const Stream&, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
              const Tensor& bias, const Tensor& c) override;

  void max_pool_forward(const Stream&, const PoolGeometry&, const Tensor& x, const Tensor& y,
                        const Tensor& indices) override;
  void max_pool_backward(const Stream&, const PoolGeometry&, const Tensor& indices, const Tensor& grad_y,
                         const Tensor& grad_x) override;
  void average_pool_forward(const Stream&, const PoolGeometry&, const Tensor& x, const Tensor& y) override;
  void average_pool_backward(const Stream&, const PoolGeometry&, const Tensor& grad_y,
                             const Tensor& grad_x) override;

  void configure(const DeviceSettings& settings);

  // How each convolution is computed, a line for each set of sizes that has occurred.
  std::vector<std::string> convolution_report();

 private:
  struct Parts;  // streams and libraries

  int index_;
  std::atomic<MathMode> math_{MathMode::fp32};
  std::atomic<bool> autotune_{false};
  std::unique_ptr<Parts> parts_;
};

namespace cuda {

// The backend of a GPU, 0 <= index < device_count(), made when it is first asked for. Makes the GPU the
// current one of the calling thread.
CudaBackend& backend(int index);

}  // namespace cuda
}  // namespace qtrain
