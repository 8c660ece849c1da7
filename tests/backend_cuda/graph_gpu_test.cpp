// Recording work and running it again.
#include "engine/backend/cuda/graph.h"

#include "engine/backend/step_graph.h"
#include "engine/core/error.h"
#include "engine/ops/convolution.h"
#include "tests/backend_cuda/support.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

// Two convolutions with a temporary between them.
class GraphOnGpu : public OnGpu {
 protected:
  static constexpr ConvolutionGeometry padded{.pad_begin = {1, 1}, .pad_end = {1, 1}};
  const Shape images_{4, 32, 8, 8};
  const Shape filters_{32, 32, 3, 3};

  void work(const Tensor& x, const Tensor& w, const Tensor& y) const {
    Backend& b = backend(x.device());
    const Tensor between = Tensor::empty(images_, DType::f32, x.device());
    b.convolution_forward(b.stream(), padded, x, w, {}, between);
    b.convolution_forward(b.stream(), padded, between, w, {}, y);
  }
  Tensor expected(const Tensor& x, const Tensor& w) const {
    Tensor y = Tensor::empty(images_);
    work(x.to(Device{}), w.to(Device{}), y);
    return y;
  }
  static Stream stream() { return backend(gpu).stream(); }
};

TEST_F(GraphOnGpu, RunsAgainOnNewValues) {
  const Tensor x = random_tensor(images_, 1, {}, gpu);
  const Tensor w = random_tensor(filters_, 2, {}, gpu);
  const Tensor y = Tensor::zeros(images_, DType::f32, gpu);
  work(x, w, y);  // chooses plans and takes memory
  backend(gpu).fill_zero(stream(), y.raw(), y.bytes());
  cuda::CudaGraphCapture capture(stream());
  work(x, w, y);
  cuda::CudaGraph graph = capture.finish();
  EXPECT_GE(graph.nodes(), 2U);
  EXPECT_EQ(y.values(), std::vector<float>(static_cast<std::size_t>(y.numel()), 0.0F)) << "recorded, not run";
  const cuda::CudaGraphExec executable(std::move(graph));
  for (const std::uint64_t seed : {10U, 11U, 12U}) {
    x.copy_from(random_tensor(images_, seed));
    executable.launch(stream());
    EXPECT_TRUE(near(y.to(Device{}), expected(x, w), 1e-5)) << seed;
  }
}

TEST_F(GraphOnGpu, HostValuesBecomeConstants) {
  const Tensor t = Tensor::zeros({4}, DType::f32, gpu);
  cuda::CudaGraphCapture capture(stream());
  {
    const std::vector<float> values{1, 2, 3, 4};
    backend(gpu).copy(stream(), t.raw(), values.data(), t.bytes(), CopyKind::host_to_device);
  }
  const cuda::CudaGraphExec executable(capture.finish());
  for (int i = 0; i < 3; ++i) {
    backend(gpu).fill_zero(stream(), t.raw(), t.bytes());
    executable.launch(stream());
    EXPECT_EQ(t.values(), (std::vector<float>{1, 2, 3, 4}));
  }
}

TEST_F(GraphOnGpu, RefusesWhatWouldSpoilARecordingAndRecovers) {
  const Tensor t = Tensor::zeros({4}, DType::f32, gpu);
  {
    const cuda::CudaGraphCapture capture(stream());
    EXPECT_THROW(backend(gpu).synchronize(stream()), DeviceError);
    EXPECT_THROW(t.values(), DeviceError);
    EXPECT_THROW(cuda::CudaGraphCapture second(stream()), DeviceError);
  }
  EXPECT_EQ(t.values(), std::vector<float>(4, 0.0F));
}

// Through the interface that the training loop uses.
TEST_F(GraphOnGpu, AStepIsRecordedAndReplayed) {
  const Tensor x = random_tensor(images_, 1, {}, gpu);
  const Tensor w = random_tensor(filters_, 2, {}, gpu);
  const Tensor y = Tensor::zeros(images_, DType::f32, gpu);
  StepGraph steps(backend(gpu), true);
  ASSERT_TRUE(steps.is_on());
  std::vector<StepGraph::Ran> ran;
  for (const std::uint64_t seed : {10U, 11U, 12U, 13U, 14U}) {
    x.copy_from(random_tensor(images_, seed));
    ran.push_back(steps.run({1}, [&] {
      work(x, w, y);
      return StepGraph::Report();
    }));
    EXPECT_TRUE(near(y.to(Device{}), expected(x, w), 1e-5)) << seed;
  }
  using Ran = StepGraph::Ran;
  EXPECT_EQ(ran, (std::vector<Ran>{Ran::by_host, Ran::by_host, Ran::recorded, Ran::replayed, Ran::replayed}));
}

// A recording may need more memory than there is in the cache.
TEST_F(GraphOnGpu, TakesNewMemoryWhileItRecords) {
  Backend& b = backend(gpu);
  const std::size_t bytes = b.allocator().statistics().reserved + 1;
  const std::size_t before = b.allocator().statistics().system_allocations;
  const Tensor last = Tensor::full({1}, 7, gpu);
  {
    cuda::CudaGraphCapture capture(stream());
    const Scratch<std::byte> large(stream(), static_cast<std::int64_t>(bytes));
    b.fill_zero(stream(), large.data(), bytes);
    b.copy(stream(), last.raw(), large.data(), last.bytes(), CopyKind::device_to_device);
    const cuda::CudaGraphExec executable(capture.finish());
    EXPECT_EQ(b.allocator().statistics().system_allocations, before + 1);
    EXPECT_EQ(last.item(), 7.0F) << "recorded, not run";
    executable.launch(stream());
    EXPECT_EQ(last.item(), 0.0F);
  }
}

}  // namespace
}  // namespace qtrain
