// Pooling and convolution one result at a time, as a GPU computes them, against the CPU's backend.
#include <gtest/gtest.h>

#include "engine/backend/backend.h"
#include "engine/kernels/direct_convolution.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/pooling.h"
#include "engine/ops/convolution.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::identical;
using testing_support::near;
using testing_support::random_tensor;

const Stream host{};

struct PoolCase {
  Shape x;
  PoolGeometry g;
};

Shape pooled(const PoolCase& c) {
  return {c.x[0], c.x[1], (c.x[2] + 2 * c.g.pad.h - c.g.kernel.h) / c.g.stride.h + 1,
          (c.x[3] + 2 * c.g.pad.w - c.g.kernel.w) / c.g.stride.w + 1};
}

TEST(PoolingDefinitions, AreTheBackends) {
  const std::vector<PoolCase> cases = {
      {{2, 3, 8, 8}, {{2, 2}, {2, 2}, {0, 0}, true}},    {{1, 17, 9, 7}, {{3, 3}, {2, 2}, {1, 1}, true}},
      {{2, 5, 7, 9}, {{3, 2}, {1, 3}, {1, 0}, false}},   {{3, 4, 5, 5}, {{5, 5}, {5, 5}, {0, 0}, true}},
      {{2, 16, 6, 11}, {{4, 3}, {3, 2}, {2, 1}, false}}, {{1, 1, 1, 1}, {{1, 1}, {1, 1}, {0, 0}, true}},
  };
  Backend& cpu = backend({});
  for (const PoolCase& c : cases) {
    const Shape out = pooled(c);
    const PoolSizes sizes(c.x, out);
    const Tensor x = random_tensor(c.x, 1);
    const Tensor g = random_tensor(out, 2);
    if (c.x.numel() > 40) {
      x.data<float>()[7] = std::numeric_limits<float>::quiet_NaN();
      x.data<float>()[20] = x.data<float>()[21];
    }
    const Tensor y = Tensor::empty(out);
    const Tensor indices = Tensor::empty(out, DType::i32);
    const Tensor grad = Tensor::empty(c.x);
    const Tensor own_y = Tensor::empty(out);
    const Tensor own_indices = Tensor::empty(out, DType::i32);
    const Tensor own_grad = Tensor::empty(c.x);

    cpu.max_pool_forward(host, c.g, x, y, indices);
    for_each(host, out.numel(),
             MaxPoolForward<float>{c.g, sizes, x.data<float>(), own_y.data<float>(),
                                   own_indices.data<std::int32_t>()});
    EXPECT_TRUE(identical(own_y.values(), y.values()));
    EXPECT_EQ(own_indices.values<std::int32_t>(), indices.values<std::int32_t>());
    cpu.max_pool_backward(host, c.g, indices, g, grad);
    for_each(host, c.x.numel(),
             MaxPoolBackward<float>{c.g, sizes, indices.data<std::int32_t>(), g.data<float>(),
                                    own_grad.data<float>()});
    EXPECT_TRUE(identical(own_grad.values(), grad.values()));

    const Tensor finite = random_tensor(c.x, 3);
    cpu.average_pool_forward(host, c.g, finite, y);
    for_each(host, out.numel(),
             AveragePoolForward<float>{c.g, sizes, finite.data<float>(), own_y.data<float>()});
    EXPECT_TRUE(near(own_y, y, 1e-6));
    cpu.average_pool_backward(host, c.g, g, grad);
    for_each(host, c.x.numel(),
             AveragePoolBackward<float>{c.g, sizes, g.data<float>(), own_grad.data<float>()});
    EXPECT_TRUE(near(own_grad, grad, 1e-6));
  }
}

struct ConvolutionCase {
  Shape x, w;
  ConvolutionGeometry g;
};

TEST(ConvolutionDefinitions, AreTheBackends) {
  const std::vector<ConvolutionCase> cases = {
      {{2, 3, 7, 6}, {5, 3, 3, 3}, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, 1}},
      {{1, 4, 9, 8}, {6, 2, 3, 2}, {{2, 3}, {1, 0}, {0, 2}, {1, 1}, 2}},
      {{2, 6, 11, 10}, {6, 1, 3, 3}, {{1, 2}, {2, 2}, {2, 1}, {2, 2}, 6}},
      {{3, 8, 5, 5}, {4, 8, 1, 1}, {{2, 2}, {0, 0}, {0, 0}, {1, 1}, 1}},
      {{1, 2, 12, 5}, {2, 2, 4, 1}, {{3, 1}, {1, 0}, {3, 0}, {2, 1}, 1}},
  };
  Backend& cpu = backend({});
  for (const ConvolutionCase& c : cases) {
    const Shape out = conv2d_shape(c.x, c.w, c.g);
    const ConvolutionSizes sizes(c.g, c.x, c.w, out);
    const Tensor x = random_tensor(c.x, 1);
    const Tensor w = random_tensor(c.w, 2);
    const Tensor g = random_tensor(out, 3);
    const Tensor y = Tensor::empty(out);
    const Tensor grad_x = Tensor::empty(c.x);
    const Tensor grad_w = Tensor::empty(c.w);
    const Tensor own_y = Tensor::empty(out);
    const Tensor own_grad_x = Tensor::empty(c.x);
    const Tensor own_grad_w = Tensor::empty(c.w);
    cpu.convolution_forward(host, c.g, x, w, {}, y);
    cpu.convolution_backward_data(host, c.g, w, g, grad_x);
    cpu.convolution_backward_weight(host, c.g, x, g, grad_w, {});
    for_each(host, out.numel(),
             ConvolutionForward<float>{sizes, x.data<float>(), w.data<float>(), own_y.data<float>()});
    for_each(
        host, c.x.numel(),
        ConvolutionBackwardData<float>{sizes, w.data<float>(), g.data<float>(), own_grad_x.data<float>()});
    for_each(
        host, c.w.numel(),
        ConvolutionBackwardWeight<float>{sizes, x.data<float>(), g.data<float>(), own_grad_w.data<float>()});
    EXPECT_TRUE(near(own_y, y, 1e-5));
    EXPECT_TRUE(near(own_grad_x, grad_x, 1e-5));
    EXPECT_TRUE(near(own_grad_w, grad_w, 1e-5));
  }
}

TEST(ElementPlaces, AreFoundWithEitherWidthOfDivision) {
  const ElementPlace small(((3 * std::int64_t{5} + 2) * 7 + 6) * 11 + 10, 5, 7, 11);
  EXPECT_EQ(small.n, 3);
  EXPECT_EQ(small.row, 2);
  EXPECT_EQ(small.column, 6);
  EXPECT_EQ(small.channel, 10);
  const ElementPlace large(((std::int64_t{40000000} * 5 + 2) * 7 + 6) * 11 + 10, 5, 7, 11);
  EXPECT_EQ(large.n, 40000000);
  EXPECT_EQ(large.row, 2);
  EXPECT_EQ(large.column, 6);
  EXPECT_EQ(large.channel, 10);
}

}  // namespace
}  // namespace qtrain
