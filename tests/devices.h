// Tests that run on every kind of device. Each is written once and stands in the list once a device; those
// for a device that this machine lacks are reported as skipped, by name and with the reason.
//
//   class Sums : public OnDevice<Case> { ... };      // device_ and case_ are what it runs on
//   TEST_P(Sums, AddUp) { ... }
//   INSTANTIATE_TEST_SUITE_P(All, Sums, on_devices(cases), device_test_name);
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/settings.h"

namespace qtrain::testing_support {

// Every kind of device that there is code for, whether this machine has it or not.
inline std::vector<Device> test_devices() {
  return {{DeviceType::cpu, 0}, {DeviceType::cuda, 0}};
}

// Why tests can't run there; "" where they can.
inline std::string absence_of(Device device) {
  const std::vector<Device> present = available_devices();
  if (std::find(present.begin(), present.end(), device) != present.end()) return "";
  const std::string reason = gpu_absence();
  return "no " + device.str() + " here" + (reason.empty() ? ", though there is a GPU" : ": " + reason);
}

// Marks the running test as skipped where the device is missing; else the device computes as it does by
// default. For SetUp(), behind which gtest looks at the mark.
inline void skip_without(Device device) {
  if (const std::string reason = absence_of(device); !reason.empty()) GTEST_SKIP() << reason;
  configure(device, {});
}

// The base of such tests. What needs the device is done in set_up(), not in a constructor.
template <class Case>
class OnDevice : public ::testing::TestWithParam<std::tuple<Device, Case>> {
 protected:
  void SetUp() final {  // NOLINT(readability-identifier-naming)
    skip_without(device_);
    if (!this->IsSkipped()) set_up();
  }
  virtual void set_up() {}

  const Device device_ = std::get<0>(this->GetParam());
  const Case case_ = std::get<1>(this->GetParam());
};

// All cases on all devices, for INSTANTIATE_TEST_SUITE_P.
template <class Cases>
auto on_devices(const Cases& cases) {
  return ::testing::Combine(::testing::ValuesIn(test_devices()), ::testing::ValuesIn(cases));
}

// "cuda_" and what the case prints as, in letters, digits and underscores.
inline constexpr auto device_test_name = [](const auto& tested) {
  std::ostringstream text;
  text << (std::get<0>(tested.param).type == DeviceType::cpu ? "cpu_" : "cuda_") << std::get<1>(tested.param);
  std::string name = text.str();
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
};

}  // namespace qtrain::testing_support
