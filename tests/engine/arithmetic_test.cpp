#include "engine/ops/arithmetic.h"

#include <functional>

#include "engine/core/error.h"
#include "tests/engine/gradient_check.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

struct Operation {
  std::string name;
  Tensor (*op)(const Tensor&, const Tensor&);
  double (*formula)(double, double);
};

const Operation operations[] = {
    {"add", add, [](double a, double b) { return a + b; }},
    {"subtract", subtract, [](double a, double b) { return a - b; }},
    {"multiply", multiply, [](double a, double b) { return a * b; }},
    {"divide", divide, [](double a, double b) { return a / b; }},
};

const std::pair<Shape, Shape> broadcasts[] = {
    {{}, {}},
    {{}, {3}},
    {{4}, {}},
    {{3}, {3}},
    {{3}, {1}},
    {{2, 3}, {3}},
    {{2, 3}, {2, 1}},
    {{2, 1}, {1, 3}},
    {{2, 3}, {}},
    {{2, 3, 4}, {3, 1}},
    {{2, 1, 4}, {3, 1}},
    {{1}, {2, 3, 4}},
    {{2, 3, 4, 5}, {2, 3, 4, 5}},  // channels-last from here on
    {{2, 3, 4, 5}, {1, 3, 1, 1}},
    {{2, 3, 4, 5}, {3, 1, 1}},
    {{2, 3, 4, 5}, {3, 4, 5}},
    {{2, 3, 4, 5}, {1, 4, 5}},
    {{2, 3, 4, 5}, {4, 5}},
    {{2, 3, 4, 5}, {5}},
    {{2, 3, 4, 5}, {}},
    {{2, 3, 4, 5}, {2, 1, 4, 5}},
    {{2, 3, 4, 5}, {2, 3, 1, 1}},
    {{2, 3, 1, 1}, {1, 1, 4, 5}},
    {{1, 3, 1, 5}, {2, 1, 4, 1}},
    {{3, 4, 1}, {2, 1, 1, 5}},
    {{2, 16, 3, 3}, {16, 3, 1}},
    {{2, 2, 3, 4, 5}, {3, 4, 5}},
    {{2, 2, 3, 4, 5}, {2, 3, 4, 5}},
    {{2, 1, 3, 4, 5}, {2, 3, 1, 5}},  // around rank 4
    {{2, 1, 2, 3, 2, 3}, {2, 2, 3, 1, 3}},
    {{2, 2, 2, 3, 2, 3}, {2, 3, 2, 3}},
};

// Row-major strides of an operand aligned at the last dimension; 0 where it is repeated.
std::size_t index_of(const Shape& operand, const Shape& whole, std::int64_t flat) {
  std::int64_t at = 0;
  std::int64_t stride = 1;
  for (std::size_t k = 0; k < whole.rank(); ++k) {
    const std::int64_t size = whole[whole.rank() - 1 - k];
    const std::int64_t position = flat % size;
    flat /= size;
    if (k >= operand.rank()) continue;
    const std::int64_t own = operand[operand.rank() - 1 - k];
    if (own != 1) at += position * stride;
    stride *= own;
  }
  return static_cast<std::size_t>(at);
}

TEST(Arithmetic, BroadcastsLikeNumPy) {
  for (const Device device : available_devices())
    for (const Operation& f : operations)
      for (const auto& [one, other] : broadcasts)
        for (const bool swapped : {false, true}) {
          const Shape& as = swapped ? other : one;
          const Shape& bs = swapped ? one : other;
          const auto a = random_values(as.numel(), 1);
          const auto b = random_values(bs.numel(), 2, {0.5, 2});
          const Tensor y = f.op(Tensor::from_values(as, a, device), Tensor::from_values(bs, b, device));
          std::vector<double> want;
          for (std::int64_t i = 0; i < y.numel(); ++i)
            want.push_back(f.formula(static_cast<double>(a[index_of(as, y.shape(), i)]),
                                     static_cast<double>(b[index_of(bs, y.shape(), i)])));
          EXPECT_TRUE(near(y, want, 2e-7)) << f.name << as.str() << bs.str();
        }
}

TEST(Arithmetic, PassesTheGradientCheck) {
  for (const Operation& f : operations)
    for (const auto& [one, other] : broadcasts)
      for (const bool swapped : {false, true})
        EXPECT_TRUE(check_gradients([&](const auto& in) { return f.op(in[0], in[1]); },
                                    {{"a", swapped ? other : one}, {"b", swapped ? one : other, {0.8, 2}}},
                                    {.most_elements = 6}))
            << f.name << one.str() << other.str();
}

TEST(Arithmetic, SameTensorTwice) {
  for (const auto& [op, want] : {std::pair{operations[0].op, 2.0F},
                                 {operations[1].op, 0.0F},
                                 {operations[2].op, 6.0F},
                                 {operations[3].op, 0.0F}}) {
    Tensor x = Tensor::full({2, 2}, 3).set_requires_grad(true);
    Tape::backward(op(x, x), Tensor::full({2, 2}, 1));
    for (const float g : x.grad().values()) EXPECT_NEAR(g, want, 1e-6);
  }
}

TEST(Arithmetic, DivisionFollowsIeee) {
  const auto y =
      divide(Tensor::from_values({4}, {1, -1, 0, 1}), Tensor::from_values({4}, {0, 0, 0, INFINITY})).values();
  EXPECT_EQ(y[0], INFINITY);
  EXPECT_EQ(y[1], -INFINITY);
  EXPECT_TRUE(std::isnan(y[2]));
  EXPECT_EQ(y[3], 0.0F);
}

TEST(Arithmetic, DivisionByVerySmallNumbersKeepsItsGradient) {
  Tensor b = Tensor::scalar(1e-25F).set_requires_grad(true);
  Tape::backward(divide(Tensor::scalar(1e-20F), b));
  EXPECT_NEAR(b.grad().item() / -1e30F, 1, 1e-5) << "b * b is below the smallest float";
}

TEST(Arithmetic, ScaleAndShift) {
  EXPECT_EQ(scale(Tensor::from_values({2}, {1, -3}), 2.5F).values(), (std::vector<float>{2.5F, -7.5F}));
  EXPECT_EQ(shift(Tensor::from_values({2}, {1, -3}), 2.5F).values(), (std::vector<float>{3.5F, -0.5F}));
  EXPECT_TRUE(check_gradients([](const auto& in) { return scale(in[0], -1.75F); }, {{"x", {2, 3, 4, 5}}}));
  EXPECT_TRUE(check_gradients([](const auto& in) { return shift(in[0], 3); }, {{"x", {2, 3, 4, 5}}}));
}

TEST(Arithmetic, InPlaceForms) {
  const Tensor a = Tensor::from_values({3}, {1, 2, 3});
  const std::uint64_t version = a.storage_version();
  add_in_place(a, Tensor::from_values({3}, {10, 20, 30}));
  EXPECT_EQ(a.values(), (std::vector<float>{11, 22, 33}));
  multiply_in_place(a, Tensor::scalar(2));
  EXPECT_EQ(a.values(), (std::vector<float>{22, 44, 66}));
  EXPECT_EQ(a.storage_version(), version + 2);
}

TEST(Arithmetic, SumToShapeIsTheAdjointOfBroadcasting) {
  for (const auto& [whole, part] : broadcasts) {
    const Tensor ones = Tensor::full(part, 1);
    const Shape joined = add(Tensor::zeros(whole), ones).shape();
    const Tensor t = random_tensor(joined, 1);
    std::vector<double> want(static_cast<std::size_t>(part.numel()));
    const auto values = t.values();
    for (std::int64_t i = 0; i < t.numel(); ++i)
      want[index_of(part, joined, i)] += static_cast<double>(values[static_cast<std::size_t>(i)]);
    EXPECT_TRUE(near(sum_to_shape(t, part), want, 1e-6)) << joined.str() << part.str();
  }
}

TEST(Arithmetic, EmptyTensors) {
  EXPECT_EQ(add(Tensor::zeros({0, 3}), Tensor::zeros({3})).shape(), (Shape{0, 3}));
  EXPECT_EQ(multiply(Tensor::zeros({2, 0, 3, 3}), Tensor::zeros({1, 1, 1, 1})).shape(), (Shape{2, 0, 3, 3}));
}

}  // namespace
}  // namespace qtrain
