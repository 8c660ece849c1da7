// Every op of engine/ops/ on small inputs, for tests that compare an op with itself: in another element type,
// on another device. A new op joins by a line in op_cases.cpp.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "tests/engine/support.h"

namespace qtrain::testing_support {

struct OpCase {
  std::string name;
  std::function<Tensor(const std::vector<Tensor>&)> op;
  std::vector<Shape> shapes;  // of the inputs
  // Each element is computed alone: in bf16, as in float32 and then rounded once.
  bool elementwise = false;
  std::vector<bool> masters{};                 // inputs that stay f32, as weights do
  double bf16_gradient_tolerance = 2.0 / 256;  // two roundings to 8 bits
  Range range{};                               // of the inputs' values
  bool sums_products = false;                  // convolutions and matrix products
  bool takes_bf16 = true;
  bool on_tape = true;  // has gradients
};

inline std::ostream& operator<<(std::ostream& out, const OpCase& c) {
  return out << c.name;
}

std::vector<OpCase> op_cases();

// All as float32 numbers.
struct OpOutcome {
  Shape shape;
  std::vector<float> y;
  std::vector<std::vector<float>> gradients;  // of every input
};

// The op and its backward with inputs of that type. The numbers are the same in every type and on every
// device.
OpOutcome run_op(const OpCase& c, DType dtype, Device device);

// As bf16 has them.
std::vector<float> rounded(std::vector<float> values);

}  // namespace qtrain::testing_support
