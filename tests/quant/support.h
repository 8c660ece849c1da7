// What the quantizers' tests share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <concepts>
#include <functional>
#include <string>
#include <vector>

#include "engine/core/error.h"
#include "engine/core/rng.h"

namespace qtrain::testing_support {

inline std::vector<float> normal_values(std::size_t count, double deviation, std::uint64_t seed = 1) {
  RandomStream random(seed, RandomPurpose::user);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(deviation * random.normal());
  return values;
}

// Expects a ValueError whose message holds all the parts.
inline void expect_refused(const std::function<void()>& call, const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "nothing thrown, expected " << parts.front();
  } catch (const ValueError& error) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}
template <std::convertible_to<std::string> Part>
void expect_refused(const std::function<void()>& call, const Part& part) {
  expect_refused(call, std::vector<std::string>{part});
}

}  // namespace qtrain::testing_support
