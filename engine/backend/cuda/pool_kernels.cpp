// The pooling functions of the CUDA backend.
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/pooling.h"

namespace qtrain {

void CudaBackend::max_pool_forward(const Stream& stream, const PoolGeometry& g, const Tensor& x,
                                   const Tensor& y, const Tensor& indices) {
  with_float_type(x.dtype(), [&](auto element) {
    using T = decltype(element);
    for_each(stream, y.numel(),
             MaxPoolForward<T>{g, PoolSizes(x.shape(), y.shape()), x.data<T>(), y.data<T>(),
                               indices.data<std::int32_t>()});
  });
}

void CudaBackend::max_pool_backward(const Stream& stream, const PoolGeometry& g, const Tensor& indices,
                                    const Tensor& grad_y, const Tensor& grad_x) {
  with_float_type(grad_y.dtype(), [&](auto element) {
    using T = decltype(element);
    for_each(stream, grad_x.numel(),
             MaxPoolBackward<T>{g, PoolSizes(grad_x.shape(), grad_y.shape()), indices.data<std::int32_t>(),
                                grad_y.data<T>(), grad_x.data<T>()});
  });
}

void CudaBackend::average_pool_forward(const Stream& stream, const PoolGeometry& g, const Tensor& x,
                                       const Tensor& y) {
  with_float_type(x.dtype(), [&](auto element) {
    using T = decltype(element);
    for_each(stream, y.numel(),
             AveragePoolForward<T>{g, PoolSizes(x.shape(), y.shape()), x.data<T>(), y.data<T>()});
  });
}

void CudaBackend::average_pool_backward(const Stream& stream, const PoolGeometry& g, const Tensor& grad_y,
                                        const Tensor& grad_x) {
  with_float_type(grad_y.dtype(), [&](auto element) {
    using T = decltype(element);
    for_each(stream, grad_x.numel(),
             AveragePoolBackward<T>{g, PoolSizes(grad_x.shape(), grad_y.shape()), grad_y.data<T>(),
                                    grad_x.data<T>()});
  });
}

}  // namespace qtrain
