// The CPU backend: oneDNN for convolutions and matrix products, vectorized loops of our own for the rest.
// Every call has finished when it returns. One file an op family: convolution.cpp, matmul.cpp,
// pooling.cpp.
#pragma once

#include "engine/backend/backend.h"

namespace qtrain {

class CpuBackend : public Backend {
 public:
  CpuBackend();

  Device device() const override { return {DeviceType::cpu, 0}; }
  Allocator& allocator() override { return *allocator_; }
  Stream stream() override { return {device(), nullptr}; }
  void copy(const Stream&, void* to, const void* from, std::size_t bytes, CopyKind) override;
  void fill_zero(const Stream&, void* to, std::size_t bytes) override;
  void synchronize(const Stream&) override {}

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

 private:
  std::unique_ptr<Allocator> allocator_;
};

}  // namespace qtrain
