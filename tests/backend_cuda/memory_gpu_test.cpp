// Memory of the GPU: copies to and fro, the allocator, and who waits for what.
#include "engine/backend/cuda/pinned.h"
#include "engine/backend/host_vector.h"
#include "engine/core/error.h"
#include "engine/core/host_read.h"
#include "tests/backend_cuda/support.h"

namespace qtrain {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

using MemoryOnGpu = OnGpu;

TEST_F(MemoryOnGpu, ValuesSurviveTheWayThereAndBack) {
  for (const std::int64_t count : {1, 3, 1000, 1 << 18, 5'000'000}) {
    const Tensor host = random_tensor({count}, static_cast<std::uint64_t>(count));
    EXPECT_TRUE(identical(host.to(gpu).values(), host.values())) << count;
  }
}

// Both ways of copying: directly, and through the copy stream's buffers, of which there are two.
TEST_F(MemoryOnGpu, HostMemoryMayBeReusedAtOnce) {
  Backend& b = backend(gpu);
  for (const std::int64_t count : {1000, 1 << 20}) {
    std::vector<Tensor> tensors;
    std::vector<float> values(static_cast<std::size_t>(count));
    const std::uint64_t waits = device_synchronization_count();
    for (int i = 0; i < 8; ++i) {
      std::ranges::fill(values, static_cast<float>(i));
      tensors.push_back(Tensor::empty({count}, DType::f32, gpu));
      b.copy(b.stream(), tensors.back().raw(), values.data(), tensors.back().bytes(),
             CopyKind::host_to_device);
    }
    std::ranges::fill(values, -1.0F);
    EXPECT_EQ(device_synchronization_count(), waits) << "copies to the device don't wait";
    for (int i = 0; i < 8; ++i)
      EXPECT_EQ(tensors[static_cast<std::size_t>(i)].values(),
                std::vector<float>(static_cast<std::size_t>(count), static_cast<float>(i)));
  }
}

TEST_F(MemoryOnGpu, PinnedBuffersAreCopiedFromDirectlyAndComeBack) {
  Backend& b = backend(gpu);
  constexpr std::size_t count = 1 << 20;
  const Tensor t = Tensor::empty({count}, DType::f32, gpu);
  const void* first = nullptr;
  {
    const cuda::PinnedBuffer buffer(count * sizeof(float));
    first = buffer.data();
    EXPECT_TRUE(cuda::is_pinned(buffer.data(), buffer.bytes()));
    EXPECT_TRUE(buffer.finished());
    auto* values = static_cast<float*>(buffer.data());
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 1000);
    b.copy(b.stream(), t.raw(), values, t.bytes(), CopyKind::host_to_device);
  }
  EXPECT_FALSE(cuda::is_pinned(first, 1));
  const std::vector<float> values = t.values();  // waits
  for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(values[i], static_cast<float>(i % 1000));
  const cuda::PinnedBuffer again(count * sizeof(float));
  EXPECT_EQ(again.data(), first);
}

// What a loader does with its batches: each is written into memory that no copy reads any more.
TEST_F(MemoryOnGpu, RenewedVectorsMayBeWrittenWhileTheirCopiesAreQueued) {
  Backend& b = backend(gpu);
  for (const std::size_t count : {std::size_t{1000}, std::size_t{1} << 20}) {
    std::vector<Tensor> tensors;
    HostVector<float> values;
    for (int i = 0; i < 8; ++i) {
      renew(values, count, b);
      EXPECT_TRUE(cuda::is_pinned(values.data(), count * sizeof(float)));
      EXPECT_TRUE(b.is_host_idle(values.data()));
      std::ranges::fill(values, static_cast<float>(i));
      tensors.push_back(Tensor::empty({static_cast<std::int64_t>(count)}, DType::f32, gpu));
      b.copy(b.stream(), tensors.back().raw(), values.data(), tensors.back().bytes(),
             CopyKind::host_to_device);
    }
    for (int i = 0; i < 8; ++i)
      EXPECT_EQ(tensors[static_cast<std::size_t>(i)].values(),
                std::vector<float>(count, static_cast<float>(i)));
  }
}

TEST_F(MemoryOnGpu, ZerosAndCopiesOnTheDevice) {
  const Tensor zeros = Tensor::zeros({3, 1001}, DType::f32, gpu);
  EXPECT_EQ(zeros.values(), std::vector<float>(3 * 1001, 0.0F));
  const Tensor x = random_tensor({3, 1001}, 1, {}, gpu);
  EXPECT_TRUE(identical(x.clone().values(), x.values()));
}

TEST_F(MemoryOnGpu, BlocksAreAlignedCountedAndReused) {
  Allocator& allocator = backend(gpu).allocator();
  void* block = allocator.allocate(1000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 256, 0U);
  const MemoryStatistics before = allocator.statistics();
  EXPECT_GE(before.reserved, before.in_use);
  void* other = allocator.allocate(1000);
  EXPECT_EQ(allocator.statistics().in_use, before.in_use + 1024);
  allocator.release(other, 1000);
  for (int i = 0; i < 100; ++i) allocator.release(allocator.allocate(1000), 1000);
  EXPECT_EQ(allocator.statistics().system_allocations, before.system_allocations);
  EXPECT_EQ(allocator.statistics().in_use, before.in_use);
  allocator.release(block, 1000);
}

TEST_F(MemoryOnGpu, ExhaustionIsAnIoErrorAndLeavesTheDeviceUsable) {
  const std::size_t everything = cuda::device_info(0).memory_bytes;
  EXPECT_THROW(backend(gpu).allocator().allocate(2 * everything), IoError);
  EXPECT_EQ(Tensor::full({}, 5, gpu).item(), 5.0F);
}

TEST_F(MemoryOnGpu, ReadingAValueWaitsOnce) {
  const Tensor t = Tensor::full({}, 2, gpu);
  const std::uint64_t waits = device_synchronization_count();
  EXPECT_EQ(t.item(), 2.0F);
  EXPECT_EQ(device_synchronization_count(), waits + 1);
}

TEST_F(MemoryOnGpu, TheWordForArrivalsIsZero) {
  Backend& b = backend(gpu);
  const Stream stream = b.stream();
  ASSERT_NE(stream.arrivals, nullptr);
  std::uint32_t word = 1;
  b.copy(stream, &word, stream.arrivals, sizeof(word), CopyKind::device_to_host);
  b.synchronize(stream);
  EXPECT_EQ(word, 0U);
}

TEST_F(MemoryOnGpu, DescribesTheDevice) {
  const std::string text = describe(gpu);
  EXPECT_EQ(text.find("cuda:0, "), 0U) << text;
  EXPECT_NE(text.find(" GiB, compute "), std::string::npos) << text;
}

}  // namespace
}  // namespace qtrain
