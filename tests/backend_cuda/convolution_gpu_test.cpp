// Convolutions on the GPU against those of the CPU backend.
#include "engine/ops/convolution.h"

#include <fmt/format.h>

#include "engine/backend/settings.h"
#include "tests/backend_cuda/convolution_cases.h"
#include "tests/backend_cuda/support.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

class ConvolutionOnGpu : public OnGpu, public ::testing::WithParamInterface<ConvolutionCase> {
 protected:
  struct Results {
    Tensor y, y_with_bias, grad_x, grad_w, grad_bias;
  };

  static Results run(const ConvolutionCase& c, Device device, DType dtype) {
    const Shape ys = conv2d_shape(c.x, c.weight, c.geometry);
    const auto place = [&](const Tensor& t) { return device == gpu ? on_gpu(t, dtype) : t; };
    const Tensor x = place(random_bfloat16_numbers(c.x, 1));
    const Tensor w = place(random_bfloat16_numbers(c.weight, 2));
    const Tensor bias = place(random_bfloat16_numbers({c.weight[0]}, 3));
    const Tensor grad_y = place(random_bfloat16_numbers(ys, 4));
    const auto make = [&](const Shape& shape) { return Tensor::empty(shape, dtype, device); };
    Results r{make(ys), make(ys), make(c.x), make(c.weight), make({c.weight[0]})};
    Backend& b = backend(device);
    b.convolution_forward(b.stream(), c.geometry, x, w, {}, r.y);
    b.convolution_forward(b.stream(), c.geometry, x, w, bias, r.y_with_bias);
    b.convolution_backward_data(b.stream(), c.geometry, w, grad_y, r.grad_x);
    b.convolution_backward_weight(b.stream(), c.geometry, x, grad_y, r.grad_w, r.grad_bias);
    return r;
  }

  static void compare(const Results& got, const Results& want, double tolerance) {
    EXPECT_TRUE(near(float_values(got.y), want.y.values(), tolerance)) << "y";
    EXPECT_TRUE(near(float_values(got.y_with_bias), want.y_with_bias.values(), tolerance)) << "y with bias";
    EXPECT_TRUE(near(float_values(got.grad_x), want.grad_x.values(), tolerance)) << "gradient of x";
    EXPECT_TRUE(near(float_values(got.grad_w), want.grad_w.values(), tolerance)) << "gradient of w";
    EXPECT_TRUE(near(float_values(got.grad_bias), want.grad_bias.values(), tolerance)) << "gradient of bias";
  }
};

TEST_P(ConvolutionOnGpu, Float32LikeTheCpu) {
  compare(run(GetParam(), gpu, DType::f32), run(GetParam(), Device{}, DType::f32), 1e-5);
}

// Products of bfloat16 numbers are exact in float32 and sums are float32: what differs is the rounding of the
// result.
TEST_P(ConvolutionOnGpu, Bfloat16LikeTheCpuRounded) {
  compare(run(GetParam(), gpu, DType::bf16), run(GetParam(), Device{}, DType::f32), 1.0 / 128);
}

// Operands are bfloat16 numbers, which tf32 holds: only the order of sums may differ.
TEST_P(ConvolutionOnGpu, Tf32IsExactForNumbersThatItHolds) {
  configure(gpu, {.math = MathMode::tf32});
  compare(run(GetParam(), gpu, DType::f32), run(GetParam(), Device{}, DType::f32), 1e-5);
}

TEST_P(ConvolutionOnGpu, MeasuredPlansComputeTheSame) {
  configure(gpu, {.math = MathMode::fp32, .autotune = true});
  compare(run(GetParam(), gpu, DType::f32), run(GetParam(), Device{}, DType::f32), 1e-5);
}

TEST_P(ConvolutionOnGpu, TwiceTheSameBits) {
  const Results first = run(GetParam(), gpu, DType::f32);
  const Results second = run(GetParam(), gpu, DType::f32);
  EXPECT_TRUE(identical(first.y_with_bias.values(), second.y_with_bias.values()));
  EXPECT_TRUE(identical(first.grad_x.values(), second.grad_x.values()));
  EXPECT_TRUE(identical(first.grad_w.values(), second.grad_w.values()));
  EXPECT_TRUE(identical(first.grad_bias.values(), second.grad_bias.values()));
}

INSTANTIATE_TEST_SUITE_P(Geometries, ConvolutionOnGpu, ::testing::ValuesIn(convolution_cases),
                         [](const auto& tested) { return tested.param.name; });

using ConvolutionPrecisionOnGpu = OnGpu;

// 1 + 2^-12 is 1 to tf32 and bfloat16: a sum of its products with 1 shows whether all bits were used.
TEST_F(ConvolutionPrecisionOnGpu, Float32UsesAllBits) {
  constexpr float fine = 1.0F + 1.0F / 4096;
  const Tensor x = Tensor::full({1, 64, 8, 8}, fine, gpu);
  const Tensor w = Tensor::full({64, 64, 1, 1}, 1, gpu);
  const Tensor y = Tensor::empty({1, 64, 8, 8}, DType::f32, gpu);
  Backend& b = backend(gpu);
  b.convolution_forward(b.stream(), {}, x, w, {}, y);
  for (const float v : y.values()) ASSERT_NEAR(v, 64 * fine, 1e-4);
  b.convolution_backward_data(b.stream(), {}, w, x, y);
  for (const float v : y.values()) ASSERT_NEAR(v, 64 * fine, 1e-4);
  const Tensor grad_w = Tensor::empty({64, 64, 1, 1}, DType::f32, gpu);
  b.convolution_backward_weight(b.stream(), {}, Tensor::full({1, 64, 8, 8}, 1, gpu), x, grad_w, {});
  for (const float v : grad_w.values()) ASSERT_NEAR(v, 64 * fine, 1e-4);
}

// Own kernels are for what cuDNN declines; an ordinary layer among those would be a mistake of ours.
TEST_F(ConvolutionPrecisionOnGpu, OrdinaryLayersRunOnCudnn) {
  const Shape x{4, 64, 14, 14};
  const Shape w{64, 64, 3, 3};
  const ConvolutionGeometry g{.pad_begin = {1, 1}, .pad_end = {1, 1}};
  Backend& b = backend(gpu);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor images = Tensor::zeros(x, dtype, gpu);
    const Tensor filters = Tensor::zeros(w, dtype, gpu);
    const Tensor y = Tensor::zeros(x, dtype, gpu);
    b.convolution_forward(b.stream(), g, images, filters, {}, y);
    b.convolution_backward_data(b.stream(), g, filters, y, images);
    b.convolution_backward_weight(b.stream(), g, images, y, filters, {});
  }
  int lines = 0;
  for (const std::string& line : cuda::backend(0).convolution_report()) {
    const bool ordinary =
        line.find("[4, 64, 14, 14] w") != std::string::npos && line.find("bias") == std::string::npos;
    if (!ordinary) continue;
    ++lines;
    EXPECT_EQ(line.find("own kernels"), std::string::npos) << line;
  }
  EXPECT_GE(lines, 6);
}

}  // namespace
}  // namespace qtrain
