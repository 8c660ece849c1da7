// Functors of the simplest arithmetic. Named ones, not lambdas: what is launched on a GPU needs a name there,
// and nvcc would hide a lambda's body from the CPU's optimizer.
#pragma once

#include <cmath>

#include "engine/kernels/functor.h"

namespace qtrain {

struct Copied {
  template <class T>
  QTRAIN_HOST_DEVICE T operator()(T x) const {
    return x;
  }
};

struct ToFloat {
  template <class T>
  QTRAIN_HOST_DEVICE float operator()(T x) const {
    return static_cast<float>(x);
  }
};

struct Scaled {
  float factor;
  QTRAIN_HOST_DEVICE float operator()(float x) const { return factor * x; }
};

struct Shifted {
  float offset;
  QTRAIN_HOST_DEVICE float operator()(float x) const { return x + offset; }
};

struct Quotient {
  float divisor;
  QTRAIN_HOST_DEVICE float operator()(float x) const { return x / divisor; }
};

struct Product {
  QTRAIN_HOST_DEVICE float operator()(float x, float y) const { return x * y; }
};

// What a reduction over x takes of each element.
struct Itself {
  QTRAIN_HOST_DEVICE Terms<1> operator()(float x) const { return {x}; }
};

struct Magnitude {
  QTRAIN_HOST_DEVICE Terms<1> operator()(float x) const { return {fabsf(x)}; }
};

// Scaled before it is summed up, so that huge ones don't overflow.
struct ScaledMagnitude {
  float factor;
  QTRAIN_HOST_DEVICE Terms<1> operator()(float x) const { return {fabsf(x) * factor}; }
};

}  // namespace qtrain
