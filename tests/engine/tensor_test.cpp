#include "engine/core/tensor.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/core/error.h"
#include "engine/core/host_read.h"
#include "engine/core/layout.h"

namespace qtrain {
namespace {

template <class T>
std::vector<T> counting(std::int64_t count) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<T>(i % 100));
  return values;
}

template <class T>
class TensorTypes : public ::testing::Test {};
using Types =
    ::testing::Types<float, double, std::int8_t, std::uint8_t, std::int16_t, std::int32_t, std::int64_t>;
TYPED_TEST_SUITE(TensorTypes, Types);

TYPED_TEST(TensorTypes, ValuesSurviveTheRoundTrip) {
  for (const Shape& s : {Shape{}, Shape{5}, Shape{2, 3}, Shape{2, 3, 4}, Shape{2, 3, 4, 5}, Shape{2, 1, 4, 5},
                         Shape{2, 7, 1, 1}, Shape{2, 2, 2, 2, 2, 2}, Shape{0, 3, 2, 2}}) {
    const auto values = counting<TypeParam>(s.numel());
    const Tensor t = Tensor::from_values<TypeParam>(s, values);
    EXPECT_EQ(t.template values<TypeParam>(), values) << s.str();
    EXPECT_EQ(t.clone().template values<TypeParam>(), values);
    EXPECT_EQ(t.dtype(), dtype_of<TypeParam>);
    EXPECT_EQ(t.bytes(), values.size() * sizeof(TypeParam));
  }
}

TEST(Tensor, ImagesAreStoredChannelsLast) {
  const Tensor t = Tensor::from_values({1, 3, 2, 2}, counting<float>(12));
  const float* p = t.data<float>();
  EXPECT_EQ(std::vector<float>(p, p + 12), (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
}

TEST(Tensor, ChannelsLastIsABijection) {
  const Shape s{2, 5, 3, 4};
  const auto nchw = counting<std::int32_t>(s.numel());
  std::vector<std::int32_t> nhwc(nchw.size());
  std::vector<std::int32_t> back(nchw.size());
  to_channels_last(s, nchw.data(), nhwc.data());
  from_channels_last(s, nhwc.data(), back.data());
  EXPECT_EQ(back, nchw);
  EXPECT_NE(nhwc, nchw);
}

TEST(Tensor, ViewsShareElementsWhereOrderAllows) {
  const Tensor t = Tensor::from_values({2, 6}, counting<float>(12));
  const Tensor v = t.view({3, 4});
  EXPECT_TRUE(v.shares_storage_with(t));
  EXPECT_EQ(v.values(), t.values());
  v.data<float>()[5] = -1;
  EXPECT_EQ(t.values()[5], -1);
  EXPECT_NO_THROW(t.view({2, 6, 1, 1}));
  EXPECT_NO_THROW(t.view({2, 1, 2, 3}));
  EXPECT_THROW(t.view({2, 3, 2, 1}), ShapeError) << "channels-last storage would be another order";
  EXPECT_THROW(t.view({5}), ShapeError);
  EXPECT_THROW(Tensor::zeros({2, 3, 4, 5}).view({2, 60}), ShapeError);
  EXPECT_NO_THROW(Tensor::zeros({2, 3, 4, 5}).view({2, 3, 4, 5}));
  EXPECT_THROW(Tensor().view({1}), ValueError);
}

TEST(Tensor, SoleOwnership) {
  Tensor t = Tensor::zeros({4});
  EXPECT_TRUE(t.is_sole_owner());
  {
    const Tensor handle = t;  // NOLINT(performance-unnecessary-copy-initialization)
    EXPECT_FALSE(t.is_sole_owner());
  }
  {
    const Tensor view = t.detach();
    EXPECT_FALSE(t.is_sole_owner());
    EXPECT_FALSE(view.is_sole_owner());
  }
  EXPECT_TRUE(t.is_sole_owner());
  EXPECT_FALSE(Tensor().is_sole_owner());
  EXPECT_FALSE(t.clone().shares_storage_with(t));
}

TEST(Tensor, CopyFromOverwritesAndCounts) {
  const Tensor t = Tensor::zeros({2, 3});
  const std::uint64_t version = t.storage_version();
  t.copy_from(Tensor::full({2, 3}, 4));
  EXPECT_EQ(t.values(), std::vector<float>(6, 4));
  EXPECT_EQ(t.storage_version(), version + 1);
  EXPECT_THROW(t.copy_from(Tensor::zeros({3, 2})), ShapeError);
  EXPECT_THROW(t.copy_from(Tensor::zeros({2, 3}, DType::f64)), DTypeError);
  EXPECT_THROW(t.copy_from(Tensor()), ValueError);
}

TEST(Tensor, HostReadsAreCounted) {
  const Tensor t = Tensor::full({1}, 2.5F);
  const std::uint64_t before = host_read_count();
  EXPECT_EQ(t.item(), 2.5F);
  EXPECT_EQ(t.values(), std::vector<float>{2.5F});
  EXPECT_EQ(host_read_count(), before + 2);
}

TEST(Tensor, MistakesAreTyped) {
  EXPECT_THROW((void)Tensor().shape(), ValueError);
  EXPECT_THROW((void)Tensor().values(), ValueError);
  EXPECT_THROW((void)Tensor().item(), ValueError);
  EXPECT_EQ(Tensor().str(), "no tensor");
  EXPECT_FALSE(Tensor().defined());
  EXPECT_THROW((void)Tensor::zeros({2}).item(), ShapeError);
  EXPECT_THROW((void)Tensor::zeros({1}, DType::i64).item(), DTypeError);
  EXPECT_THROW((void)Tensor::zeros({2}).data<double>(), DTypeError);
  EXPECT_THROW((void)Tensor::zeros({2}).values<std::int32_t>(), DTypeError);
  EXPECT_THROW(Tensor::from_values({3}, {1, 2}), ShapeError);
  EXPECT_THROW(Tensor::zeros({2}, DType::i32).set_requires_grad(true), DTypeError);
  EXPECT_THROW((Shape{-1, 2}), ShapeError);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), ShapeError);
}

TEST(Tensor, ImpossibleSizesAreRefused) {
  constexpr std::int64_t most = std::int64_t{1} << 62;
  EXPECT_THROW((Shape{most, 4}), ShapeError);
  EXPECT_THROW(Tensor::empty({most}), Error) << "as many bytes as there are addresses, modulo 2^64 none";
  EXPECT_THROW(Tensor::empty({most - 1}), Error);
  EXPECT_THROW(Tensor::empty({most + 1}, DType::i64), Error);
  EXPECT_THROW(Tensor::full({most}, 1), Error);
  EXPECT_THROW(Tensor::zeros({most}, DType::u8), Error);
}

TEST(Shape, PrintsAndCompares) {
  EXPECT_EQ((Shape{2, 3}).str(), "[2, 3]");
  EXPECT_EQ(Shape{}.str(), "[]");
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{2, 0, 3}).numel(), 0);
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
  EXPECT_EQ(Tensor::zeros({2, 3}, DType::i8).str(), "i8[2, 3]");
}

}  // namespace
}  // namespace qtrain
