// The kernels of batch norm, emulated on the host, against the host's own loops: outputs bit for bit, sums
// within rounding, and the same bits in whatever order threads and blocks run.
#define QTRAIN_EMULATE_KERNELS

#include <gtest/gtest.h>

#include "engine/kernels/batch_norm.h"
#include "engine/kernels/device/statistics.h"
#include "engine/ops/cast.h"
#include "tests/engine/device/emulator.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::in_each_order;
using testing_support::near;
using testing_support::random_tensor;

const Stream host{};

// Of x: packets and odd numbers of columns, one column, more columns than threads lie side by side, few rows
// and more than one chunk.
std::vector<Shape> shapes() {
  return {{3, 16}, {40, 37, 2, 2}, {300, 1}, {5, 200, 1, 3}, {2, 64, 9, 9}, {280, 8, 2, 2}};
}

// What stands for a quantizer: one number, two sums.
struct Clamp {
  const float* level;
  float high = -1;
  QTRAIN_HOST_DEVICE void prepare() { high = *level; }
  QTRAIN_HOST_DEVICE float operator()(float y) const { return y < high ? y : high; }
};
struct ClampGradient {
  Clamp clamp;
  QTRAIN_HOST_DEVICE void prepare() { clamp.prepare(); }
  QTRAIN_HOST_DEVICE Mapped<2> operator()(float y, float g) const {
    return {y < clamp.high ? g : 0.0F, {y < clamp.high ? 0.5F * g : g, g * y}};
  }
};
struct ClampPasses {
  Clamp clamp;
  QTRAIN_HOST_DEVICE void prepare() { clamp.prepare(); }
  QTRAIN_HOST_DEVICE float operator()(float y, float g) const { return y < clamp.high ? g : 0.0F; }
};

struct Layer {
  Tensor x, gamma, beta, residual, coefficients, grad, addend, level;
  explicit Layer(const Shape& shape)
      : x(random_tensor(shape, 1, {-2, 3})),
        gamma(random_tensor({shape[1]}, 2, {0.5, 2})),
        beta(random_tensor({shape[1]}, 3)),
        residual(random_tensor(shape, 4)),
        coefficients(Tensor::empty({coefficient_rows, shape[1]})),
        grad(random_tensor(shape, 5)),
        addend(random_tensor(shape, 6)),
        level(Tensor::full({1}, 0.4F)) {
    batch_norm_statistics(host, x, gamma, beta, 1e-3F, 0.1F, {}, {}, coefficients);
  }
};

TEST(EmulatedBatchNorm, Statistics) {
  for (const Shape& shape : shapes())
    for (const double offset : {0.0, 1000.0}) {
      const Shape channels{shape[1]};
      const Tensor x = random_tensor(shape, 1, {offset - 1, offset + 1});
      const Tensor gamma = random_tensor(channels, 2), beta = random_tensor(channels, 3);
      const auto run = [&](auto&& compute) {
        std::vector<Tensor> results{Tensor::empty({coefficient_rows, shape[1]}), Tensor::full(channels, 0.5F),
                                    Tensor::full(channels, 2)};
        compute(results);
        return results;
      };
      const auto expected = run(
          [&](const auto& r) { batch_norm_statistics(host, x, gamma, beta, 1e-3F, 0.3F, r[1], r[2], r[0]); });
      std::vector<std::vector<float>> first;
      in_each_order([&](const Stream& stream) {
        const auto got = run([&](const auto& r) {
          const BatchNormChannel channel{r[0].template data<float>(), shape[1], gamma.data<float>(),
                                         beta.data<float>()};
          device::batch_norm_statistics<float>(
              stream, x,
              BatchNormTraining{channel, 1e-3F, 0.3F, r[1].template data<float>(),
                                r[2].template data<float>()});
        });
        for (std::size_t i = 0; i < got.size(); ++i) {
          EXPECT_TRUE(near(got[i], expected[i], 2e-6)) << shape.str() << " " << offset << " result " << i;
          if (first.size() <= i) first.push_back(got[i].values());
          EXPECT_EQ(got[i].values(), first[i]) << shape.str();
        }
      });
    }
}

TEST(EmulatedBatchNorm, OutputsAndWhatFollows) {
  for (const Shape& shape : shapes()) {
    const Layer l(shape);
    for (const bool relu : {false, true})
      for (const bool residual : {false, true})
        for (const bool writes_y : {false, true}) {
          const BatchNormOutput of{l.x, residual ? l.residual : Tensor(), l.coefficients, relu};
          const Clamp clamp{l.level.data<float>()};
          const Tensor q = Tensor::zeros(shape), y = writes_y ? Tensor::zeros(shape) : Tensor();
          batch_norm_map(host, of, clamp, q, y);
          in_each_order([&](const Stream& stream) {
            const Tensor got = Tensor::zeros(shape), got_y = writes_y ? Tensor::zeros(shape) : Tensor();
            device::batch_norm_map<float>(stream, of, clamp, got, got_y);
            EXPECT_EQ(got.values(), q.values()) << shape.str();
            if (!writes_y) return;
            EXPECT_EQ(got_y.values(), y.values()) << shape.str();
            const Tensor alone = Tensor::zeros(shape);
            device::batch_norm_map<float>(stream, of, Identity{}, {}, alone);
            EXPECT_EQ(alone.values(), y.values()) << shape.str();
          });
        }
  }
}

// compute(arguments, sums) with fresh places; over_grad: dL/dx is written over dL/dq.
template <int K, class Compute>
std::vector<Tensor> gradients(const Layer& l, BatchNormBackward a, bool with_residual, bool over_grad,
                              Compute&& compute) {
  const Shape channels{l.x.dim(1)};
  a.grad = l.grad.clone();
  a.gradients = {over_grad ? a.grad : Tensor::empty_like(l.x), Tensor::empty(channels),
                 Tensor::empty(channels), with_residual ? Tensor::empty_like(l.x) : Tensor()};
  const Tensor sums = Tensor::zeros({2});
  std::array<float*, static_cast<std::size_t>(K)> places{};
  for (std::size_t k = 0; k < places.size(); ++k) places[k] = sums.data<float>() + k;
  compute(a, places);
  std::vector<Tensor> all{a.gradients.x, a.gradients.gamma, a.gradients.beta, sums};
  if (with_residual) all.push_back(a.gradients.residual);
  return all;
}

template <int K, class Math>
void compare_backward(const Shape& shape, const Math& math) {
  const Layer l(shape);
  for (const bool relu : {false, true})
    for (const int other : {0, 1, 2})  // neither, residual, y
      for (const bool addend : {false, true}) {
        const bool training = relu != addend;
        BatchNormBackward a{.of = {l.x, other == 1 ? l.residual : Tensor(), l.coefficients, relu},
                            .y = {},
                            .grad = {},
                            .addend = addend ? l.addend : Tensor(),
                            .training = training,
                            .gradients = {}};
        if (other == 2) {
          a.y = Tensor::empty(shape);
          batch_norm_output(host, {l.x, l.residual, l.coefficients, relu}, a.y);
        }
        const std::vector<Tensor> expected = gradients<K>(
            l, a, other > 0, false,
            [&](const auto& with, const auto& sums) { batch_norm_backward<K>(host, with, math, sums); });
        std::vector<std::vector<float>> first;
        in_each_order([&](const Stream& stream) {
          const std::vector<Tensor> got =
              gradients<K>(l, a, other > 0, true, [&](const auto& with, const auto& sums) {
                device::batch_norm_backward<float, K>(stream, with, math, sums);
              });
          for (std::size_t i = 0; i < got.size(); ++i) {
            EXPECT_TRUE(near(got[i], expected[i], 1e-5))
                << shape.str() << " relu " << relu << " other " << other << " addend " << addend
                << " gradient " << i;
            if (first.size() <= i) first.push_back(got[i].values());
            EXPECT_EQ(got[i].values(), first[i]) << shape.str();
          }
        });
      }
}

TEST(EmulatedBatchNorm, Backward) {
  for (const Shape& shape : shapes()) compare_backward<0>(shape, Identity{});
}

TEST(EmulatedBatchNorm, BackwardWithWhatFollows) {
  const Tensor level = Tensor::full({1}, 0.4F);
  const Clamp clamp{level.data<float>()};
  for (const Shape& shape : shapes()) {
    compare_backward<0>(shape, ClampPasses{clamp});
    compare_backward<2>(shape, ClampGradient{clamp});
  }
}

// -- with a border around q and dL/dq

struct Bordered {
  Shape images;
  Border border;
};

std::vector<Bordered> bordered() {
  return {{{3, 16, 4, 5}, {{1, 1}, {1, 1}}},
          {{2, 37, 3, 2}, {{1, 2}, {0, 3}}},
          {{300, 1, 1, 1}, {{2, 0}, {0, 1}}},
          {{2, 200, 3, 1}, {{0, 1}, {0, 1}}},
          {{2, 64, 9, 9}, {{4, 4}, {11, 2}}},
          {{280, 8, 2, 2}, {{1, 1}, {1, 1}}},
          {{2, 8, 5, 6}, {}}};
}

// Batch norm's output and then the border is what both do in one.
TEST(EmulatedBatchNorm, OutputsWithABorder) {
  for (const auto& [shape, border] : bordered()) {
    const Layer l(shape);
    const BorderedRows rows(shape, border);
    const BatchNormOutput of{l.x, l.residual, l.coefficients, true};
    const Clamp clamp{l.level.data<float>()};
    const Tensor y = Tensor::empty(shape), q = Tensor::empty(border.around(shape));
    batch_norm_output(host, of, y);
    map_bordered(host, rows, clamp, q.data<float>(), y.data<float>());
    const auto expect_same = [&, &images = shape, &edge = border](const auto& compute) {
      for (const bool writes_y : {false, true}) {
        const Tensor got = Tensor::full(edge.around(images), -7);
        const Tensor got_y = writes_y ? Tensor::full(images, -7) : Tensor();
        compute(got, got_y);
        EXPECT_EQ(got.values(), q.values()) << images.str();
        if (!writes_y) continue;
        EXPECT_EQ(got_y.values(), y.values()) << images.str();
      }
    };
    expect_same(
        [&](const Tensor& to_q, const Tensor& to_y) { batch_norm_map(host, of, clamp, to_q, to_y, rows); });
    in_each_order([&](const Stream& stream) {
      expect_same([&](const Tensor& to_q, const Tensor& to_y) {
        device::batch_norm_map<float>(stream, of, clamp, to_q, to_y, rows);
      });
    });
  }
}

// The quantizer's gradient by itself and then batch norm's.
template <int K, class Math>
void compare_bordered_backward(const Bordered& c, const Math& math) {
  const Layer l(c.images);
  const BorderedRows rows(c.images, c.border);
  const Tensor grad = random_tensor(c.border.around(c.images), 7);
  const Tensor y = Tensor::empty(c.images);
  for (const bool residual : {false, true}) {
    const BatchNormOutput of{l.x, residual ? l.residual : Tensor(), l.coefficients, true};
    batch_norm_output(host, of, y);
    const BatchNormBackward whole{
        .of = of, .y = {}, .grad = grad, .addend = l.addend, .training = true, .gradients = {}};
    const std::vector<Tensor> expected =
        gradients<K>(l, whole, residual, false, [&](BatchNormBackward apart, const auto& sums) {
          float totals[2] = {};
          apart.grad = Tensor::empty(l.x.shape());
          map_reduce_inside<K>(host, rows, l.x.numel(), {}, math, totals, apart.grad.data<float>(),
                               grad.data<float>(), y.data<float>());
          for (std::size_t k = 0; k < sums.size(); ++k) *sums[k] = totals[k];
          batch_norm_backward<0>(host, apart, Identity{});
        });
    const auto expect_same = [&](const auto& compute) {
      std::vector<Tensor> got =
          gradients<K>(l, whole, residual, false, [&](BatchNormBackward with, const auto& sums) {
            with.grad = grad;
            compute(with, sums);
          });
      for (std::size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(near(got[i], expected[i], 1e-5))
            << c.images.str() << " residual " << residual << " gradient " << i;
      return got;
    };
    expect_same(
        [&](const auto& with, const auto& sums) { batch_norm_backward<K>(host, with, math, sums, rows); });
    std::vector<std::vector<float>> first;
    in_each_order([&](const Stream& stream) {
      const std::vector<Tensor> got = expect_same([&](const auto& with, const auto& sums) {
        device::batch_norm_backward<float, K>(stream, with, math, sums, rows);
      });
      for (std::size_t i = 0; i < got.size(); ++i) {
        if (first.size() <= i) first.push_back(got[i].values());
        EXPECT_EQ(got[i].values(), first[i]) << c.images.str();
      }
    });
  }
}

TEST(EmulatedBatchNorm, BackwardOfGradientsWithABorder) {
  const Tensor level = Tensor::full({1}, 0.4F);
  const Clamp clamp{level.data<float>()};
  for (const Bordered& c : bordered()) {
    compare_bordered_backward<0>(c, ClampPasses{clamp});
    compare_bordered_backward<2>(c, ClampGradient{clamp});
  }
}

// The host goes through f32 copies. q_shape: x's, with the border that rows tell of.
template <class Rows>
void compare_bf16(const Shape& shape, const Shape& q_shape, const Rows& rows) {
  constexpr double rounding = 1.0 / 128;
  const Layer l(shape);
  const auto narrow = [](const Tensor& t) { return cast(t, DType::bf16); };
  const BatchNormOutput of{narrow(l.x), narrow(l.residual), l.coefficients, true};
  const Tensor grad = narrow(random_tensor(q_shape, 5));
  const Clamp clamp{l.level.data<float>()};
  struct Results {
    Tensor q, y, grad_x, grad_residual, grad_gamma, grad_beta, sums = Tensor::empty({2});
    Results(const Tensor& x, const Tensor& like_q)
        : q(Tensor::empty_like(like_q)),
          y(Tensor::empty_like(x)),
          grad_x(Tensor::empty_like(x)),
          grad_residual(Tensor::empty_like(x)),
          grad_gamma(Tensor::empty({x.dim(1)})),
          grad_beta(Tensor::empty({x.dim(1)})) {}
    BatchNormSums<2> both_sums() const { return {sums.data<float>(), sums.data<float>() + 1}; }
  };
  const auto backward_of = [&](const Results& r) {
    return BatchNormBackward{.of = of,
                             .y = r.y,
                             .grad = grad,
                             .addend = narrow(l.addend),
                             .training = true,
                             .gradients = {r.grad_x, r.grad_gamma, r.grad_beta, r.grad_residual}};
  };
  const Results want(of.x, grad);
  batch_norm_map(host, of, clamp, want.q, want.y, rows);
  batch_norm_backward<2>(host, backward_of(want), ClampGradient{clamp}, want.both_sums(), rows);
  in_each_order([&](const Stream& stream) {
    const Results got(of.x, grad);
    device::batch_norm_map<BFloat16>(stream, of, clamp, got.q, got.y, rows);
    device::batch_norm_backward<BFloat16, 2>(stream, backward_of(got), ClampGradient{clamp}, got.both_sums(),
                                             rows);
    const auto wide = [](const Tensor& t) { return cast(t, DType::f32).values(); };
    EXPECT_EQ(wide(got.y), wide(want.y));
    EXPECT_EQ(wide(got.q), wide(want.q));
    EXPECT_TRUE(near(wide(got.grad_x), wide(want.grad_x), rounding)) << shape.str();
    EXPECT_TRUE(near(wide(got.grad_residual), wide(want.grad_residual), rounding)) << shape.str();
    EXPECT_TRUE(near(got.grad_gamma, want.grad_gamma, rounding)) << shape.str();
    EXPECT_TRUE(near(got.grad_beta, want.grad_beta, rounding)) << shape.str();
    EXPECT_TRUE(near(got.sums, want.sums, 1e-5)) << shape.str();
  });
}

TEST(EmulatedBatchNorm, OfBf16IsTheHosts) {
  const Border border{{1, 0}, {2, 1}};
  for (const Shape& shape : {Shape{2, 64, 9, 9}, Shape{40, 37, 2, 2}}) {
    compare_bf16(shape, shape, NoBorder());
    compare_bf16(shape, border.around(shape), BorderedRows(shape, border));
  }
}

}  // namespace
}  // namespace qtrain
