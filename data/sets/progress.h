#pragma once

#include <cstddef>
#include <functional>

namespace qtrain::data {

// Called while something long is being made, from one thread at a time.
using Progress = std::function<void(std::size_t done, std::size_t total)>;

}  // namespace qtrain::data
