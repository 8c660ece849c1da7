// Elementwise arithmetic with broadcasting: sizes are aligned from the last dimension (NumPy's rule), and a
// dimension of size 1, or a missing one, is repeated. All tensors are f32, or all bf16, on one device.
// Errors: ShapeError where sizes don't match, DTypeError, DeviceError.
#pragma once

#include "engine/core/tensor.h"

namespace qtrain {

Tensor add(const Tensor& a, const Tensor& b);
Tensor subtract(const Tensor& a, const Tensor& b);
Tensor multiply(const Tensor& a, const Tensor& b);
Tensor divide(const Tensor& a, const Tensor& b);  // IEEE: x/0 is infinite, 0/0 NaN

Tensor scale(const Tensor& x, float factor);  // factor * x
Tensor shift(const Tensor& x, float offset);  // x + offset

// a += b for equal shapes; off the tape.
void add_in_place(const Tensor& a, const Tensor& b);
// a *= factor; off the tape. `factor` is a one-element tensor on a's device, so that nothing waits for the
// host.
void multiply_in_place(const Tensor& a, const Tensor& factor);

// Sums the dimensions that broadcasting `shape` to t's shape would repeat: the adjoint of broadcasting. Off
// the tape.
Tensor sum_to_shape(const Tensor& t, const Shape& shape);

}  // namespace qtrain
