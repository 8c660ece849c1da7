// Matrix products on the GPU against those of the CPU backend.
#include <fmt/format.h>

#include "engine/backend/settings.h"
#include "tests/backend_cuda/support.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

struct Sizes {
  std::int64_t m, n, k;
};
const std::vector<Sizes> sizes{{1, 1, 1},    {3, 5, 7},      {128, 10, 512},
                               {64, 64, 64}, {33, 257, 129}, {256, 1000, 2048}};

class MatmulOnGpu : public OnGpu, public ::testing::WithParamInterface<Sizes> {
 protected:
  // The worst failure over all transpositions, with and without bias.
  static void compare(DType dtype, double tolerance) {
    const auto [m, n, k] = GetParam();
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const bool has_bias : {false, true}) {
          const Tensor a = random_bfloat16_numbers(transpose_a ? Shape{k, m} : Shape{m, k}, 1);
          const Tensor b = random_bfloat16_numbers(transpose_b ? Shape{n, k} : Shape{k, n}, 2);
          const Tensor bias = random_bfloat16_numbers({n}, 3);
          const Tensor want = Tensor::empty({m, n});
          Backend& cpu = backend(Device{});
          cpu.matmul(cpu.stream(), a, transpose_a, b, transpose_b, has_bias ? bias : Tensor(), want);
          const Tensor got = Tensor::empty({m, n}, dtype, gpu);
          Backend& device = backend(gpu);
          device.matmul(device.stream(), on_gpu(a, dtype), transpose_a, on_gpu(b, dtype), transpose_b,
                        has_bias ? on_gpu(bias, dtype) : Tensor(), got);
          EXPECT_TRUE(near(float_values(got), want.values(), tolerance))
              << (transpose_a ? "a transposed " : "") << (transpose_b ? "b transposed " : "")
              << (has_bias ? "bias" : "");
        }
  }
};

TEST_P(MatmulOnGpu, Float32LikeTheCpu) {
  compare(DType::f32, 1e-5);
}
TEST_P(MatmulOnGpu, Tf32IsExactForNumbersThatItHolds) {
  configure(gpu, {.math = MathMode::tf32});
  compare(DType::f32, 1e-5);
}
TEST_P(MatmulOnGpu, Bfloat16LikeTheCpuRounded) {
  compare(DType::bf16, 1.0 / 256);
}

INSTANTIATE_TEST_SUITE_P(Sizes, MatmulOnGpu, ::testing::ValuesIn(sizes), [](const auto& tested) {
  return fmt::format("{}x{}x{}", tested.param.m, tested.param.n, tested.param.k);
});

using MatmulPrecisionOnGpu = OnGpu;

TEST_F(MatmulPrecisionOnGpu, Float32UsesAllBits) {
  constexpr float fine = 1.0F + 1.0F / 4096;
  const Tensor c = Tensor::empty({64, 64}, DType::f32, gpu);
  Backend& b = backend(gpu);
  b.matmul(b.stream(), Tensor::full({64, 64}, fine, gpu), false, Tensor::full({64, 64}, 1, gpu), false, {},
           c);
  for (const float v : c.values()) ASSERT_NEAR(v, 64 * fine, 1e-4);
}

// A float32 bias beside a bfloat16 result is added by a kernel of its own.
TEST_F(MatmulPrecisionOnGpu, BiasOfAnotherElementType) {
  const Tensor a = random_bfloat16_numbers({32, 48}, 1);
  const Tensor w = random_bfloat16_numbers({48, 16}, 2);
  const Tensor bias = random_bfloat16_numbers({16}, 3);
  const Tensor want = Tensor::empty({32, 16});
  Backend& cpu = backend(Device{});
  cpu.matmul(cpu.stream(), a, false, w, false, bias, want);
  const Tensor got = Tensor::empty({32, 16}, DType::bf16, gpu);
  Backend& device = backend(gpu);
  device.matmul(device.stream(), on_gpu(a, DType::bf16), false, on_gpu(w, DType::bf16), false, bias.to(gpu),
                got);
  EXPECT_TRUE(near(float_values(got), want.values(), 1.0 / 128));  // rounded before and after the bias
}

}  // namespace
}  // namespace qtrain
