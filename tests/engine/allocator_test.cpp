#include "engine/core/allocator.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/convolution.h"
#include "engine/ops/reduce.h"

namespace qtrain {
namespace {

constexpr std::size_t mebi = std::size_t{1} << 20;

SegmentSource heap() {
  return {[](std::size_t bytes) {
            return bytes > 1024 * mebi ? nullptr : std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
          },
          [](void* segment, std::size_t) { std::free(segment); }};
}

TEST(CachingAllocator, SplitsSegmentsAndMergesThemAgain) {
  CachingAllocator allocator(heap());
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(allocator.allocate(mebi));
  EXPECT_EQ(allocator.statistics().system_allocations, 1U);
  EXPECT_EQ(allocator.statistics().in_use, 8 * mebi);
  for (const int i : {1, 5, 3, 7, 2, 0, 6, 4}) allocator.release(blocks[static_cast<std::size_t>(i)], mebi);
  EXPECT_EQ(allocator.statistics().in_use, 0U);
  const std::size_t whole = allocator.statistics().reserved;
  void* all = allocator.allocate(whole);  // fits only if every piece was merged
  EXPECT_EQ(allocator.statistics().system_allocations, 1U);
  allocator.release(all, whole);
}

TEST(CachingAllocator, ReusesTheBestFit) {
  CachingAllocator allocator(heap());
  void* large = allocator.allocate(3 * mebi);
  void* fence0 = allocator.allocate(64);
  void* small = allocator.allocate(mebi);
  void* fence1 = allocator.allocate(64);
  allocator.release(large, 3 * mebi);
  allocator.release(small, mebi);
  EXPECT_EQ(allocator.allocate(mebi), small);
  EXPECT_EQ(allocator.allocate(2 * mebi), large);
  allocator.release(small, mebi);
  allocator.release(large, 2 * mebi);
  allocator.release(fence0, 64);
  allocator.release(fence1, 64);
  EXPECT_EQ(allocator.statistics().in_use, 0U);
}

TEST(CachingAllocator, BlocksAreAlignedAndDisjoint) {
  CachingAllocator allocator(heap());
  RandomStream random(1, RandomPurpose::user);
  struct Held {
    unsigned char* bytes;
    std::size_t size;
    unsigned char mark;
  };
  std::vector<Held> held;
  for (int step = 0; step < 3000; ++step) {
    if (held.size() < 100 && (held.empty() || random.bernoulli(0.55))) {
      const std::size_t size = random.below(random.bernoulli(0.05) ? mebi : 5000);
      auto* bytes = static_cast<unsigned char*>(allocator.allocate(size));
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(bytes) % Allocator::alignment, 0U);
      const auto mark = static_cast<unsigned char>(step);
      std::memset(bytes, mark, size);
      held.push_back({bytes, size, mark});
    } else {
      const std::size_t victim = random.below(held.size());
      const Held block = held[victim];
      for (std::size_t i = 0; i < block.size; ++i)
        ASSERT_EQ(block.bytes[i], block.mark) << "overwritten by another block";
      allocator.release(block.bytes, block.size);
      held[victim] = held.back();
      held.pop_back();
    }
  }
  for (const Held& block : held) allocator.release(block.bytes, block.size);
  EXPECT_EQ(allocator.statistics().in_use, 0U);
}

TEST(CachingAllocator, PeakFollowsUse) {
  CachingAllocator allocator(heap());
  void* a = allocator.allocate(4 * mebi);
  void* b = allocator.allocate(2 * mebi);
  allocator.release(a, 4 * mebi);
  EXPECT_EQ(allocator.statistics().peak_in_use, 6 * mebi);
  allocator.reset_peak();
  EXPECT_EQ(allocator.statistics().peak_in_use, 2 * mebi);
  a = allocator.allocate(mebi);
  EXPECT_EQ(allocator.statistics().peak_in_use, 3 * mebi);
  allocator.release(a, mebi);
  allocator.release(b, 2 * mebi);
}

TEST(CachingAllocator, RepeatedPatternAsksTheSystemForNothing) {
  CachingAllocator allocator(heap());
  const auto pattern = [&] {
    RandomStream random(3, RandomPurpose::user);
    std::vector<std::pair<void*, std::size_t>> held;
    for (int i = 0; i < 300; ++i) {
      const std::size_t size = random.below(2 * mebi);
      held.emplace_back(allocator.allocate(size), size);
      if (random.bernoulli(0.4)) {
        allocator.release(held.front().first, held.front().second);
        held.erase(held.begin());
      }
    }
    for (const auto& [block, size] : held) allocator.release(block, size);
  };
  pattern();
  const std::size_t first = allocator.statistics().system_allocations;
  for (int i = 0; i < 20; ++i) pattern();
  EXPECT_EQ(allocator.statistics().system_allocations, first);
}

TEST(CachingAllocator, ExhaustionIsATypedErrorAndLeavesItWhole) {
  CachingAllocator allocator(heap());
  for (const std::size_t bytes : {2000 * mebi, SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / 2})
    EXPECT_THROW(allocator.allocate(bytes), IoError) << bytes;
  void* block = allocator.allocate(100);
  allocator.release(block, 100);
  EXPECT_EQ(allocator.statistics().in_use, 0U);
}

TEST(CachingAllocator, BlocksStartAtMultiplesOfTheUnit) {
  CachingAllocator allocator(heap(), 256);
  std::vector<void*> blocks;
  for (const std::size_t bytes : {1U, 255U, 256U, 257U, 5000U}) {
    blocks.push_back(allocator.allocate(bytes));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(blocks.back()) % 256, 0U) << bytes;
  }
  EXPECT_EQ(allocator.statistics().in_use, (1U + 1U + 1U + 2U + 20U) * 256U);
  for (void* block : blocks) allocator.release(block, 0);
  EXPECT_EQ(allocator.statistics().in_use, 0U);
}

TEST(CachingAllocator, ThreadsShareIt) {
  CachingAllocator allocator(heap());
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&allocator, t] {
      RandomStream random(t, RandomPurpose::user);
      std::vector<std::pair<unsigned char*, std::size_t>> held;
      for (int i = 0; i < 2000; ++i) {
        const std::size_t size = 1 + random.below(3000);
        auto* bytes = static_cast<unsigned char*>(allocator.allocate(size));
        bytes[0] = bytes[size - 1] = static_cast<unsigned char>(t);
        held.emplace_back(bytes, size);
        if (held.size() < 50) continue;
        const std::size_t victim = random.below(held.size());
        EXPECT_EQ(held[victim].first[0], t);
        EXPECT_EQ(held[victim].first[held[victim].second - 1], t);
        allocator.release(held[victim].first, held[victim].second);
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(victim));
      }
      for (const auto& [block, size] : held) allocator.release(block, size);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allocator.statistics().in_use, 0U);
}

TEST(SystemAllocator, CountsLikeTheOther) {
  SystemAllocator allocator;
  void* block = allocator.allocate(1000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % Allocator::alignment, 0U);
  EXPECT_EQ(allocator.statistics().in_use, 1024U);
  allocator.release(block, 1000);
  EXPECT_EQ(allocator.statistics().in_use, 0U);
  EXPECT_EQ(allocator.statistics().peak_in_use, 1024U);
  EXPECT_THROW(allocator.allocate(SIZE_MAX), IoError);
}

TEST(TrainingStep, AsksTheSystemForNothingAfterTheSecond) {
  Allocator& allocator = backend(Device{}).allocator();
  if (dynamic_cast<CachingAllocator*>(&allocator) == nullptr) GTEST_SKIP() << "caching is off";
  Tensor w = Tensor::full({32, 16, 3, 3}, 0.1F).set_requires_grad(true);
  const BatchNormState state{Tensor::full({32}, 1), Tensor::zeros({32}), Tensor::zeros({32}),
                             Tensor::full({32}, 1)};
  const Tensor x = Tensor::full({8, 16, 32, 32}, 1);
  std::size_t after_second = 0;
  for (int step = 0; step < 6; ++step) {
    Tape::backward(mean(batch_norm_training(conv2d(x, w), state, {.relu = true})));
    w.set_grad({});
    if (step == 1) after_second = allocator.statistics().system_allocations;
  }
  EXPECT_EQ(allocator.statistics().system_allocations, after_second);
}

}  // namespace
}  // namespace qtrain
