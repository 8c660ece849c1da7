// What cuDNN's heuristics say about a GPU that isn't here. No driver is needed: engines are chosen and plans
// are built for a description of the device, so that what we tell the library is tested wherever it is
// installed.
#include "engine/backend/cuda/offline_plans.h"

#include "engine/ops/convolution.h"
#include "tests/backend_cuda/convolution_cases.h"
#include "tests/engine/support.h"

namespace qtrain::cuda {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

// An H200, by its data sheet, in the words of cuDNN 9.19.
constexpr const char* h200 = R"({
  "deviceName": "NVIDIA H200", "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0, "pciDeviceId": 0,
  "multiProcessorCount": 132, "warpSize": 32, "totalGlobalMem": 150000000000, "l2CacheSize": 62914560,
  "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
  "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "maxCtasPerSM": 32,
  "regsPerBlock": 65536, "maxRegistersPerSM": 65536,
  "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024,
  "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "isTccDriver": 0, "supportCoopLaunch": 1})";

enum class Arithmetic { fp32, tf32, bf16 };
constexpr std::array arithmetics{Arithmetic::fp32, Arithmetic::tf32, Arithmetic::bf16};
constexpr std::array kinds{ConvolutionKind::forward, ConvolutionKind::backward_data,
                           ConvolutionKind::backward_weight};

ConvolutionProblem problem_of(const ConvolutionCase& c, ConvolutionKind kind, Arithmetic arithmetic,
                              bool bias) {
  const DType dtype = arithmetic == Arithmetic::bf16 ? DType::bf16 : DType::f32;
  ConvolutionProblem p{.kind = kind,
                       .geometry = c.geometry,
                       .x = channels_last(c.x, dtype),
                       .w = channels_last(c.weight, dtype),
                       .y = channels_last(conv2d_shape(c.x, c.weight, c.geometry), dtype),
                       .bias = std::nullopt,
                       .math = arithmetic == Arithmetic::tf32 ? MathMode::tf32 : MathMode::fp32};
  if (bias) p.bias = one_per_channel(c.weight[0], dtype);
  return p;
}

class OfflinePlansOf : public ::testing::TestWithParam<ConvolutionCase> {
 protected:
  void SetUp() override {
    const OfflinePlans known = offline_convolution_plans(
        h200, problem_of(convolution_cases[0], ConvolutionKind::forward, Arithmetic::fp32, false), 0);
    if (!known.understood) GTEST_SKIP() << "this cuDNN describes devices in other words: " << known.reason;
  }
};

TEST_P(OfflinePlansOf, EveryKindHasAPlanInEveryArithmetic) {
  for (const Arithmetic arithmetic : arithmetics)
    for (const ConvolutionKind kind : kinds)
      for (const bool bias : {false, true}) {
        if (bias && kind != ConvolutionKind::forward) continue;
        const ConvolutionProblem p = problem_of(GetParam(), kind, arithmetic, bias);
        const OfflinePlans found = offline_convolution_plans(h200, p, 1);
        EXPECT_EQ(found.plans.size(), 1U) << p.str() << ": " << found.reason;
      }
}

TEST_P(OfflinePlansOf, Float32StaysOffTensorCores) {
  for (const ConvolutionKind kind : kinds)
    for (const std::string& plan :
         offline_convolution_plans(h200, problem_of(GetParam(), kind, Arithmetic::fp32, false), 100).plans)
      EXPECT_EQ(plan.find("tensor cores"), std::string::npos) << plan;
}

INSTANTIATE_TEST_SUITE_P(Geometries, OfflinePlansOf, ::testing::ValuesIn(convolution_cases),
                         [](const auto& tested) { return tested.param.name; });

using OfflinePlansTest = OfflinePlansOf;

TEST_P(OfflinePlansTest, TensorCoresAreUsedWhereTheyMayBe) {
  for (const ConvolutionKind kind : kinds)
    for (const Arithmetic arithmetic : {Arithmetic::tf32, Arithmetic::bf16}) {
      const ConvolutionProblem p = problem_of(GetParam(), kind, arithmetic, false);
      const OfflinePlans found = offline_convolution_plans(h200, p, 1);
      ASSERT_EQ(found.plans.size(), 1U) << p.str() << ": " << found.reason;
      EXPECT_NE(found.plans[0].find("on tensor cores"), std::string::npos)
          << p.str() << ": " << found.plans[0];
    }
}

INSTANTIATE_TEST_SUITE_P(LargeLayers, OfflinePlansTest,
                         ::testing::Values(ConvolutionCase{"resnet50_stage2",
                                                           {64, 128, 28, 28},
                                                           {128, 128, 3, 3},
                                                           {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
                                           ConvolutionCase{
                                               "resnet50_expand", {64, 256, 14, 14}, {1024, 256, 1, 1}, {}}),
                         [](const auto& tested) { return tested.param.name; });

TEST(OfflinePlans, AWrongProblemIsDeclinedWithTheReason) {
  ConvolutionProblem p = problem_of(convolution_cases[2], ConvolutionKind::forward, Arithmetic::fp32, false);
  p.w.sizes[1] = 3;  // of 64 channels
  const OfflinePlans found = offline_convolution_plans(h200, p, 1);
  EXPECT_TRUE(found.plans.empty());
  EXPECT_FALSE(found.reason.empty());
}

TEST(OfflinePlans, AnUnknownDescriptionIsDeclined) {
  const OfflinePlans found = offline_convolution_plans(
      "{}", problem_of(convolution_cases[0], ConvolutionKind::forward, Arithmetic::fp32, false), 1);
  EXPECT_FALSE(found.understood);
  EXPECT_FALSE(found.reason.empty());
}

}  // namespace
}  // namespace qtrain::cuda
