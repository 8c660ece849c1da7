// Tensors that a pass over many of them takes together.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

namespace qtrain {

// Arrays that belong together: a parameter, its state and its gradient, say. They don't overlap. What const
// ones hold is only read.
template <class... Element>
struct TensorSet {
  std::tuple<Element*...> arrays;
  std::int64_t count = 0;  // elements of each of them
  std::int64_t group = 0;  // whose settings apply
};

template <class... Element>
using TensorSets = std::vector<TensorSet<Element...>>;

}  // namespace qtrain
