#include "engine/ops/result_ring.h"

#include <gtest/gtest.h>

#include "engine/core/error.h"
#include "engine/core/host_read.h"

namespace qtrain {
namespace {

TEST(ResultRing, KeepsTheLastRows) {
  ResultRing ring(3, 2, {});
  EXPECT_EQ(ring.read(), std::vector<float>(6, 0));
  for (int i = 0; i < 5; ++i) {
    const Tensor row[] = {Tensor::scalar(static_cast<float>(i)),
                          Tensor::full({1}, static_cast<float>(10 * i))};
    ring.append(row);
  }
  const std::uint64_t reads = host_read_count();
  EXPECT_EQ(ring.read(), (std::vector<float>{3, 30, 4, 40, 2, 20}));
  EXPECT_EQ(host_read_count(), reads + 1);
}

TEST(ResultRing, RefusesWhatDoesNotFit) {
  EXPECT_THROW(ResultRing(0, 1, {}), ValueError);
  EXPECT_THROW(ResultRing(1, 0, {}), ValueError);
  EXPECT_THROW(ResultRing(1, ResultRing::most_columns + 1, {}), ValueError);
  ResultRing ring(1, 1, {});
  const Tensor two[] = {Tensor::scalar(1), Tensor::scalar(2)};
  EXPECT_THROW(ring.append(two), ShapeError);
  const Tensor pair[] = {Tensor::zeros({2})};
  EXPECT_THROW(ring.append(pair), ShapeError);
  const Tensor whole[] = {Tensor::zeros({1}, DType::i64)};
  EXPECT_THROW(ring.append(whole), DTypeError);
}

}  // namespace
}  // namespace qtrain
