// Every op gives on every device what it gives on the CPU, gradients included, and there the same bits each
// time. Each result is compared relative to its largest value.
#include <gtest/gtest.h>

#include "tests/devices.h"
#include "tests/engine/op_cases.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::near;
using testing_support::op_cases;
using testing_support::OpCase;
using testing_support::OpOutcome;
using testing_support::run_op;

struct Tolerance {
  double y = 0;
  double gradients = 0;
};

// In float32, devices add up in different orders, longer sums in those of products. In bf16, what lies
// between two numbers may also be rounded to the other one.
Tolerance tolerance_of(const OpCase& c, DType dtype) {
  if (dtype == DType::bf16) return {.y = 2.0 / 256, .gradients = c.bf16_gradient_tolerance};
  const double sums = c.sums_products ? 1e-4 : 1e-5;
  return {.y = sums, .gradients = sums};
}

testing::AssertionResult same_within(const OpOutcome& got, const OpOutcome& want, const Tolerance& allowed) {
  if (got.shape != want.shape)
    return testing::AssertionFailure() << got.shape.str() << ", expected " << want.shape.str();
  if (const auto verdict = near(got.y, want.y, allowed.y); !verdict) return verdict;
  if (got.gradients.size() != want.gradients.size())
    return testing::AssertionFailure() << got.gradients.size() << " gradients";
  for (std::size_t i = 0; i < got.gradients.size(); ++i)
    if (const auto verdict = near(got.gradients[i], want.gradients[i], allowed.gradients); !verdict)
      return testing::AssertionFailure() << "gradient " << i << ": " << verdict.message();
  return testing::AssertionSuccess();
}

class DeviceParity : public testing_support::OnDevice<OpCase> {
 protected:
  std::vector<DType> dtypes() const {
    return case_.takes_bf16 ? std::vector{DType::f32, DType::bf16} : std::vector{DType::f32};
  }
};

TEST_P(DeviceParity, IsTheCpusResult) {
  for (const DType dtype : dtypes())
    EXPECT_TRUE(same_within(run_op(case_, dtype, device_), run_op(case_, dtype, Device{}),
                            tolerance_of(case_, dtype)))
        << name_of(dtype);
}

TEST_P(DeviceParity, IsTheSameBitsTwice) {
  for (const DType dtype : dtypes()) {
    const OpOutcome first = run_op(case_, dtype, device_);
    const OpOutcome second = run_op(case_, dtype, device_);
    EXPECT_TRUE(identical(first.y, second.y)) << name_of(dtype);
    ASSERT_EQ(first.gradients.size(), second.gradients.size());
    for (std::size_t i = 0; i < first.gradients.size(); ++i)
      EXPECT_TRUE(identical(first.gradients[i], second.gradients[i])) << name_of(dtype) << ", gradient " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, DeviceParity, testing_support::on_devices(op_cases()),
                         testing_support::device_test_name);

TEST(TestDevices, ThoseThatAreMissingHaveAReason) {
  EXPECT_EQ(testing_support::absence_of(Device{}), "");
  const std::string reason = testing_support::absence_of({DeviceType::cuda, 99});
  EXPECT_NE(reason.find("cuda:99"), std::string::npos) << reason;
  EXPECT_NE(reason.find(gpu_absence()), std::string::npos) << reason;
}

// The comparison itself: one number off by twice the tolerance shows, wherever it is.
TEST(DeviceParityCheck, ShowsOneWrongNumber) {
  for (const OpCase& c : op_cases()) {
    SCOPED_TRACE(c.name);
    const OpOutcome right = run_op(c, DType::f32, Device{});
    const Tolerance allowed = tolerance_of(c, DType::f32);
    EXPECT_TRUE(same_within(right, right, allowed));
    const auto spoil = [](std::vector<float>& values, double tolerance) {
      double largest = 0;
      for (const float v : values) largest = std::max(largest, std::abs(static_cast<double>(v)));
      values[values.size() / 2] += static_cast<float>(2 * tolerance * largest);
    };
    OpOutcome wrong = right;
    spoil(wrong.y, allowed.y);
    EXPECT_FALSE(same_within(wrong, right, allowed));
    for (std::size_t i = 0; i < right.gradients.size(); ++i) {
      wrong = right;
      spoil(wrong.gradients[i], allowed.gradients);
      EXPECT_FALSE(same_within(wrong, right, allowed)) << "gradient " << i;
    }
  }
}

}  // namespace
}  // namespace qtrain
