#include "engine/kernels/convert.h"

#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_type.h"
#include "engine/kernels/scalar_functors.h"

namespace qtrain {

void convert(const Stream& stream, const Tensor& from, const Tensor& to) {
  with_float_type(from.dtype(), [&](auto source) {
    with_float_type(to.dtype(), [&](auto target) {
      map(stream, to.numel(), Copied(), to.data<decltype(target)>(), from.data<decltype(source)>());
    });
  });
}

Tensor widened(const Stream& stream, const Tensor& t) {
  if (!t.defined()) return t;
  Tensor wide = Tensor::empty(t.shape(), DType::f32, t.device());
  convert(stream, t, wide);
  return wide;
}

}  // namespace qtrain
