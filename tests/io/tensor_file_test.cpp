// Tensors keep every bit on their way through a file, and files have PyTorch's element order.
#include "engine/io/tensor_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "engine/core/error.h"
#include "engine/io/checkpoint_file.h"
#include "tests/io/io_test_support.h"

namespace qtrain {
namespace {

using testing::message_of;
using testing::TemporaryFolder;

template <class T>
std::vector<std::byte> raw(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

// 0, 1, 2, ... (modulo the type) in N, C, H, W order.
template <class T>
std::vector<T> counting(const Shape& shape) {
  std::vector<T> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(i % 251);
  return values;
}

template <class T>
class TensorFileOf : public ::testing::Test {};
using ElementTypes =
    ::testing::Types<float, double, std::int8_t, std::uint8_t, std::int16_t, std::int32_t, std::int64_t>;
TYPED_TEST_SUITE(TensorFileOf, ElementTypes);

TYPED_TEST(TensorFileOf, RoundTripInPyTorchOrder) {
  const TemporaryFolder folder;
  const Shape shapes[] = {{},
                          {0},
                          {7},
                          {3, 5},
                          {2, 3, 4},
                          {2, 3, 4, 5},
                          {1, 1, 3, 3},
                          {4, 1, 7, 1},
                          {0, 3, 2, 2},
                          {2, 0, 3, 3},
                          {5, 40, 6, 7},
                          {2, 3, 0, 4},
                          {3, 70, 1, 1},
                          {1, 33, 33, 2},
                          {2, 2, 2, 2, 2}};
  TensorMap tensors;
  for (const Shape& shape : shapes) {
    const std::vector<TypeParam> values = counting<TypeParam>(shape);
    tensors[shape.str()] = Tensor::from_values<TypeParam>(shape, std::span<const TypeParam>(values));
  }
  save_tensors(folder / "t", tensors, {{"k", "v"}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "t");
  EXPECT_EQ(file.metadata().at("k"), "v");
  const TensorMap loaded = load_tensors(folder / "t");
  ASSERT_EQ(loaded.size(), std::size(shapes));
  for (const Shape& shape : shapes) {
    const std::vector<TypeParam> values = counting<TypeParam>(shape);
    EXPECT_TRUE(std::ranges::equal(file.at(shape.str()).bytes, raw(values))) << shape.str();
    EXPECT_EQ(loaded.at(shape.str()).shape(), shape);
    EXPECT_EQ(loaded.at(shape.str()).dtype(), dtype_of<TypeParam>);
    EXPECT_EQ(loaded.at(shape.str()).template values<TypeParam>(), values) << shape.str();
  }
}

TEST(TensorFileTest, Bf16AndNanPayloadsKeepTheirBits) {
  const TemporaryFolder folder;
  const std::vector<BFloat16> halves = {{0x7FC1}, {0xFF80}, {0x0001}, {0x8000}};
  const std::vector<float> floats = {std::bit_cast<float>(0x7FA12345U), -0.0F,
                                     std::numeric_limits<float>::denorm_min(), -INFINITY};
  save_tensors(folder / "t",
               {{"b", Tensor::from_values<BFloat16>({1, 2, 1, 2}, std::span<const BFloat16>(halves))},
                {"f", Tensor::from_values({1, 2, 2, 1}, floats)}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "t");
  EXPECT_EQ(file.at("b").dtype, "BF16");
  EXPECT_TRUE(std::ranges::equal(file.at("b").bytes, raw(halves)));
  EXPECT_TRUE(std::ranges::equal(file.at("f").bytes, raw(floats)));
  save_tensors(folder / "u", load_tensors(folder / "t"));
  const SafetensorsFile again = SafetensorsFile::open(folder / "u");
  EXPECT_TRUE(std::ranges::equal(again.at("f").bytes, raw(floats)));
}

TEST(TensorFileTest, MemoryIsChannelsLast) {
  const std::vector<float> values = {0, 1, 2, 3, 10, 11, 12, 13};  // two channels of 2x2
  const Tensor tensor = to_tensor({"w", "F32", {1, 2, 2, 2}, std::as_bytes(std::span(values))});
  const std::vector<float> stored(tensor.data<float>(), tensor.data<float>() + 8);
  EXPECT_EQ(stored, (std::vector<float>{0, 10, 1, 11, 2, 12, 3, 13}));
}

TEST(TensorFileTest, UnalignedBytesAreFine) {
  const std::vector<double> values = counting<double>({2, 3, 2, 2});
  std::vector<std::byte> shifted = {std::byte{0}};
  const std::vector<std::byte> bytes = raw(values);
  shifted.insert(shifted.end(), bytes.begin(), bytes.end());
  const Tensor tensor = to_tensor({"w", "F64", {2, 3, 2, 2}, std::span(shifted).subspan(1)});
  EXPECT_EQ(tensor.values<double>(), values);
}

TEST(TensorFileTest, EveryHalfBecomesItsFloat) {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  const Tensor tensor = to_tensor({"h", "F16", {65536}, std::as_bytes(std::span(halves))});
  const std::vector<float> floats = tensor.values();
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const int exponent = static_cast<int>((i >> 10) & 31);
    const auto fraction = static_cast<float>(i & 1023);
    const float sign = (i >> 15) != 0 ? -1.0F : 1.0F;
    if (exponent == 31 && fraction != 0) {
      EXPECT_TRUE(std::isnan(floats[i])) << i;
      continue;
    }
    const float expected = exponent == 31  ? INFINITY
                           : exponent == 0 ? std::ldexp(fraction, -24)
                                           : std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(floats[i]), std::bit_cast<std::uint32_t>(sign * expected)) << i;
  }
}

TEST(TensorFileTest, BooleansBecomeBytes) {
  const std::vector<std::byte> bits = {std::byte{1}, std::byte{0}};
  EXPECT_EQ(to_tensor({"m", "BOOL", {2}, bits}).values<std::uint8_t>(), (std::vector<std::uint8_t>{1, 0}));
}

TEST(TensorFileTest, RefusalsNameTheTensor) {
  const std::vector<std::byte> bytes(16);
  const std::string dtype = message_of<DTypeError>([&] {
    to_tensor({"fc.weight", "U16", {8}, bytes}, "m.safetensors");
  });
  EXPECT_NE(dtype.find("[m.safetensors] tensor 'fc.weight'"), std::string::npos) << dtype;
  EXPECT_NE(dtype.find("U16"), std::string::npos) << dtype;
  const std::string rank = message_of<ShapeError>([&] {
    to_tensor({"w", "U8", {1, 1, 1, 1, 1, 1, 16}, bytes});
  });
  EXPECT_NE(rank.find("tensor 'w' has too many dimensions; got 7"), std::string::npos) << rank;
  EXPECT_NE(message_of<ValueError>([] {
              HostTensors(TensorMap{{"u", Tensor()}});
            }).find("'u'"),
            std::string::npos);
}

TEST(TensorFileTest, NonFiniteTensorsAreNamed) {
  const auto floats = [](const std::vector<float>& values) {
    return Tensor::from_values({static_cast<std::int64_t>(values.size())}, values);
  };
  const std::vector<double> nan64 = {0, std::nan("")};
  const std::vector<BFloat16> inf16 = {{0x7F80}};
  const std::vector<std::int32_t> ints = {0x7F800000, -1};
  const TensorMap tensors = {
      {"finite",
       floats({0, -1, std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min()})},
      {"inf", floats({1, -INFINITY})},
      {"nan", floats({NAN})},
      {"nan64", Tensor::from_values<double>({2}, std::span<const double>(nan64))},
      {"inf16", Tensor::from_values<BFloat16>({1}, std::span<const BFloat16>(inf16))},
      {"ints", Tensor::from_values<std::int32_t>({2}, std::span<const std::int32_t>(ints))},
      {"none", Tensor()},
      {"empty", Tensor::empty({0})}};
  EXPECT_EQ(non_finite_tensors(tensors), (std::vector<std::string>{"inf", "inf16", "nan", "nan64"}));
}

TEST(TensorFileTest, ThroughACheckpoint) {
  const TemporaryFolder folder;
  const TensorMap tensors = {{"w", Tensor::from_values({2, 3, 4, 5}, counting<float>({2, 3, 4, 5}))}};
  const HostTensors host(NamedTensors{{"w", tensors.at("w")}});
  save_checkpoint(folder / "c", host.list(), {{"epoch", "1"}});
  const CheckpointFile file = CheckpointFile::open(folder / "c");
  EXPECT_TRUE(file.verified());
  EXPECT_EQ(to_tensors(file.entries(), file.name()).at("w").values(), tensors.at("w").values());
}

}  // namespace
}  // namespace qtrain
