// Which devices there are, in builds with and without CUDA and on machines with and without a GPU.
#include <gtest/gtest.h>

#include "engine/backend/backend.h"
#include "engine/backend/settings.h"
#include "engine/core/error.h"
#include "engine/core/host_read.h"

namespace qtrain {
namespace {

std::string message_for(Device device) {
  try {
    backend(device);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Registry, TheCpuComesFirstAndIsAlwaysThere) {
  const std::vector<Device> devices = available_devices();
  ASSERT_FALSE(devices.empty());
  EXPECT_EQ(devices[0], Device{});
  EXPECT_EQ(describe(devices[0]), "cpu");
  for (const Device device : devices) EXPECT_EQ(backend(device).device(), device);
  configure(Device{}, {.math = MathMode::tf32, .autotune = true});
}

TEST(Registry, AMissingGpuIsATypedErrorWithTheReason) {
  const Device missing{DeviceType::cuda, static_cast<int>(available_devices().size()) - 1};
  const std::string message = message_for(missing);
  EXPECT_NE(message.find("[device] not available: "), std::string::npos) << message;
  EXPECT_NE(message.find("got " + missing.str()), std::string::npos) << message;
  EXPECT_NE(message.find("expected cpu"), std::string::npos) << message;
  if (missing.index == 0) {
    const bool built_without = message.find("this build is without CUDA") != std::string::npos;
    const bool no_gpu = message.find("the CUDA driver offers no GPU: ") != std::string::npos;
    EXPECT_TRUE(built_without != no_gpu) << message;
  } else {
    EXPECT_NE(message.find("no such device"), std::string::npos) << message;
  }
  EXPECT_THROW(describe(missing), DeviceError);
  EXPECT_THROW(configure(missing, {}), DeviceError);
  EXPECT_THROW(backend({DeviceType::cuda, -1}), DeviceError);
  EXPECT_THROW(backend({DeviceType::cpu, 1}), DeviceError);
  EXPECT_THROW(Tensor::zeros({2}, DType::f32, missing), DeviceError);
}

TEST(Registry, NothingWaitsForTheCpu) {
  const std::uint64_t reads = host_read_count();
  const std::uint64_t waits = device_synchronization_count();
  EXPECT_EQ(Tensor::full({}, 3).item(), 3.0F);
  EXPECT_EQ(host_read_count(), reads + 1);
  EXPECT_EQ(device_synchronization_count(), waits);
}

}  // namespace
}  // namespace qtrain
