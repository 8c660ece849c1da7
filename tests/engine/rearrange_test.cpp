#include "engine/ops/rearrange.h"

#include <numeric>

#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

std::vector<float> counting(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0.0F);
  return values;
}

const std::pair<Shape, Shape> reshapes[] = {
    {{6}, {2, 3}},
    {{2, 3}, {6}},
    {{}, {1, 1}},
    {{2, 3, 4}, {4, 6}},
    {{2, 3, 4, 5}, {2, 60}},
    {{2, 60}, {2, 3, 4, 5}},
    {{2, 3, 4, 5}, {5, 4, 3, 2}},
    {{2, 3, 4, 5}, {6, 20}},
    {{2, 3, 4, 5}, {2, 1, 12, 5}},
    {{2, 1, 4, 5}, {2, 20}},
    {{2, 7, 1, 1}, {2, 7}},
    {{2, 3, 4, 5}, {1, 2, 3, 4, 5}},
    {{4, 1, 1, 6}, {1, 24, 1, 1}},
    {{2, 3, 4, 5}, {2, 3, 4, 5}},
    {{2, 3, 2, 2, 2}, {6, 2, 2, 2}},
};

TEST(Reshape, KeepsRowMajorOrder) {
  for (const Device device : available_devices())
    for (const auto& [from, to] : reshapes) {
      const auto values = counting(from.numel());
      const Tensor y = reshape(Tensor::from_values(from, values, device), to.dims());
      EXPECT_EQ(y.shape(), to);
      EXPECT_EQ(y.values(), values) << from.str() << to.str();
    }
}

TEST(Reshape, PassesTheGradientCheck) {
  for (const auto& [from, to] : reshapes)
    EXPECT_TRUE(check_gradients([&target = to](const auto& in) { return reshape(in[0], target.dims()); },
                                {{"x", from}}))
        << from.str() << to.str();
}

TEST(Reshape, CopiesOnlyWhereItMust) {
  const Tensor x = Tensor::zeros({2, 3, 4, 5});
  EXPECT_TRUE(reshape(x, {2, 3, 4, 5}).shares_storage_with(x));
  EXPECT_FALSE(reshape(x, {2, 60}).shares_storage_with(x));
  const Tensor pooled = Tensor::zeros({2, 3, 1, 1});
  EXPECT_TRUE(flatten(pooled).shares_storage_with(pooled));
}

TEST(Reshape, FindsOneSize) {
  EXPECT_EQ(reshape(Tensor::zeros({2, 3, 4, 5}), {-1, 20}).shape(), (Shape{6, 20}));
  EXPECT_EQ(reshape(Tensor::zeros({6}), {2, -1, 3}).shape(), (Shape{2, 1, 3}));
  EXPECT_EQ(reshape(Tensor::zeros({}), {-1}).shape(), (Shape{1}));
}

TEST(Flatten, KeepsTheBatch) {
  const auto values = counting(120);
  EXPECT_EQ(flatten(Tensor::from_values({2, 3, 4, 5}, values)).shape(), (Shape{2, 60}));
  EXPECT_EQ(flatten(Tensor::from_values({2, 3, 4, 5}, values)).values(), values);
  EXPECT_TRUE(check_gradients([](const auto& in) { return flatten(in[0]); }, {{"x", {2, 3, 4, 5}}}));
}

// part[i0, i1, ...] is whole[i0, i1 + start, ...]: walks outer x dim x inner blocks in row-major order.
TEST(Concat, JoinsAlongAnyDimension) {
  for (const Device device : available_devices())
    for (const Shape& first : {Shape{3}, Shape{2, 3}, Shape{2, 3, 4}, Shape{2, 3, 4, 5}, Shape{1, 1, 1, 1},
                               Shape{1, 3, 1, 2}, Shape{2, 1, 2, 3, 2}})
      for (std::size_t dim = 0; dim < first.rank(); ++dim) {
        Shape second = first;
        second[dim] = 2;
        const auto a = counting(first.numel());
        const auto b = random_values(second.numel(), 1);
        std::int64_t inner = 1;
        for (std::size_t d = dim + 1; d < first.rank(); ++d) inner *= first[d];
        std::vector<float> want;
        const auto block_a = static_cast<std::ptrdiff_t>(first[dim] * inner);
        const auto block_b = static_cast<std::ptrdiff_t>(2 * inner);
        for (std::ptrdiff_t o = 0; o < static_cast<std::ptrdiff_t>(a.size()) / block_a; ++o) {
          want.insert(want.end(), a.begin() + o * block_a, a.begin() + (o + 1) * block_a);
          want.insert(want.end(), b.begin() + o * block_b, b.begin() + (o + 1) * block_b);
        }
        const Tensor parts[] = {Tensor::from_values(first, a, device),
                                Tensor::from_values(second, b, device)};
        const Tensor y = concat(parts, dim);
        EXPECT_EQ(y.dim(dim), first[dim] + 2);
        EXPECT_EQ(y.values(), want) << first.str() << " along " << dim;
        EXPECT_TRUE(check_gradients(
            [&](const auto& in) {
              return concat(std::vector<Tensor>{in[0], in[1], in[0]}, dim);
            },
            {{"a", first}, {"b", second}}, {.most_elements = 12}));
      }
}

TEST(Concat, OfOneAndOfEmptyParts) {
  const Tensor x = Tensor::from_values({2, 2}, counting(4));
  EXPECT_EQ(concat(std::vector<Tensor>{x}, 1).values(), counting(4));
  EXPECT_EQ(concat(std::vector<Tensor>{Tensor::zeros({0, 2}), x}, 0).values(), counting(4));
}

TEST(Pad, AddsRowsAndColumns) {
  const Shape s{2, 3, 2, 4};
  const auto x = counting(s.numel());
  for (const Device device : available_devices())
    for (const auto& [begin, end] : {std::pair{Extent{0, 0}, Extent{0, 0}},
                                     {Extent{1, 2}, Extent{0, 3}},
                                     {Extent{0, 1}, Extent{2, 0}}}) {
      const Tensor y = pad2d(Tensor::from_values(s, x, device), begin, end, -1.5F);
      ASSERT_EQ(y.shape(), (Shape{2, 3, 2 + begin.h + end.h, 4 + begin.w + end.w}));
      std::vector<float> want;
      for (std::int64_t image = 0; image < 6; ++image)
        for (std::int64_t i = -begin.h; i < 2 + end.h; ++i)
          for (std::int64_t j = -begin.w; j < 4 + end.w; ++j)
            want.push_back(i >= 0 && i < 2 && j >= 0 && j < 4
                               ? x[static_cast<std::size_t>(image * 8 + i * 4 + j)]
                               : -1.5F);
      EXPECT_EQ(y.values(), want);
      EXPECT_TRUE(check_gradients([b = begin, e = end](const auto& in) { return pad2d(in[0], b, e, 2); },
                                  {{"x", s}}));
    }
}

TEST(Images, AreNormalizedInThisOrder) {
  std::vector<std::uint8_t> bytes;
  bytes.reserve(120);
  for (int i = 0; i < 2 * 3 * 4 * 5; ++i) bytes.push_back(static_cast<std::uint8_t>(i * 37));
  const Shape s{2, 3, 4, 5};
  const std::vector<float> mean{0.485F, 0.456F, 0.406F};
  const std::vector<float> deviation{0.229F, 0.224F, 0.225F};
  for (const Device device : available_devices()) {
    const Tensor images = Tensor::from_values<std::uint8_t>(s, bytes, device);
    std::vector<float> normalized;
    std::vector<float> raw;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const std::size_t c = i / 20 % 3;
      normalized.push_back((static_cast<float>(bytes[i]) / 255.0F - mean[c]) / deviation[c]);
      raw.push_back(static_cast<float>(bytes[i]));
    }
    EXPECT_EQ(normalize_images(images, mean, deviation).values(), normalized);
    EXPECT_EQ(images_to_float(images).values(), raw);
  }
}

}  // namespace
}  // namespace qtrain
