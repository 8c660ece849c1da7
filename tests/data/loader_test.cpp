#include "data/loader/loader.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

#include "engine/core/error.h"
#include "tests/data/fake_dataset.h"
#include "tests/data/support.h"

namespace qtrain::data {
namespace {

TEST(LoaderTest, BatchesDependOnSeedAndEpochOnly) {
  const auto dataset = std::make_shared<FakeDataset>(150);
  const Epoch expected = run_epoch(dataset, small_options(0), 3);
  for (const int workers : {1, 2, 4, 16}) {
    for (const std::size_t prefetch : {1U, 3U, 20U}) {
      LoaderOptions options = small_options(workers);
      options.prefetch = prefetch;
      EXPECT_TRUE(run_epoch(dataset, options, 3) == expected) << workers << " workers, prefetch " << prefetch;
    }
  }
  EXPECT_FALSE(run_epoch(dataset, small_options(2), 4) == expected);
  LoaderOptions other_seed = small_options(2);
  other_seed.seed = 10;
  EXPECT_FALSE(run_epoch(dataset, other_seed, 3) == expected);
}

TEST(LoaderTest, AnEpochHasEverySampleOnce) {
  const auto dataset = std::make_shared<FakeDataset>(150);
  const Epoch epoch = run_epoch(dataset, small_options(2), 0);
  EXPECT_EQ(epoch.bytes.size(), 10U);
  EXPECT_EQ(epoch.bytes.back().size(), 6U * 12 * 12 * 3);
  const std::set<std::int64_t> seen(epoch.indices.begin(), epoch.indices.end());
  EXPECT_EQ(epoch.indices.size(), 150U);
  EXPECT_EQ(seen.size(), 150U);
  for (std::size_t i = 0; i < 150; ++i) EXPECT_EQ(epoch.labels[i], epoch.indices[i] % 3);

  LoaderOptions options = small_options(2);
  options.drop_last = true;
  EXPECT_EQ(run_epoch(dataset, options, 0).bytes.size(), 9U);
  options.shuffle = false;
  const Epoch in_order = run_epoch(dataset, options, 0);
  for (std::size_t i = 0; i < 144; ++i) EXPECT_EQ(in_order.indices[i], static_cast<std::int64_t>(i));
}

TEST(LoaderTest, ResumesInTheMiddleOfAnEpoch) {
  const auto dataset = std::make_shared<FakeDataset>(150);
  const Epoch whole = run_epoch(dataset, small_options(2), 5);
  for (const std::size_t done : {1U, 4U, 9U}) {
    Loader loader(dataset, small_options(3));
    loader.start_epoch(5, done * 16);
    const Epoch rest = drain(loader);
    EXPECT_TRUE(std::equal(rest.bytes.begin(), rest.bytes.end(),
                           whole.bytes.begin() + static_cast<std::ptrdiff_t>(done), whole.bytes.end()));
  }
  Loader loader(dataset, small_options(1));
  loader.start_epoch(5, 150);
  EXPECT_FALSE(loader.next().has_value());
  EXPECT_THROW(loader.start_epoch(5, 151), ValueError);
}

TEST(LoaderTest, EpochsCanBeLeftAndRestarted) {
  const auto dataset = std::make_shared<FakeDataset>(150);
  const Epoch expected = run_epoch(dataset, small_options(0), 1);
  for (const int workers : {0, 1, 4}) {
    Loader loader(dataset, small_options(workers));
    EXPECT_FALSE(loader.next().has_value());  // none started
    for (int taken = 0; taken < 6; ++taken) {
      loader.start_epoch(0);
      for (int i = 0; i < taken; ++i) EXPECT_TRUE(loader.next().has_value());
    }
    loader.start_epoch(1);
    EXPECT_TRUE(drain(loader) == expected);
    EXPECT_FALSE(loader.next().has_value());
    loader.start_epoch(1);
    EXPECT_TRUE(drain(loader) == expected);
    EXPECT_GE(loader.wait_seconds(), 0.0);
  }
}

TEST(LoaderTest, ReadsNoFurtherAheadThanPrefetch) {
  const auto dataset = std::make_shared<FakeDataset>(1000);
  LoaderOptions options = small_options(4);
  options.prefetch = 3;
  Loader loader(dataset, options);
  loader.start_epoch(0);
  Batch batch;
  for (std::size_t taken = 1; taken <= 5; ++taken) {
    ASSERT_TRUE(loader.next(batch));
    for (int i = 0; i < 100; ++i) std::this_thread::yield();
    EXPECT_LE(dataset->loads, (taken + 3) * 16);
  }
}

TEST(LoaderTest, MemoryIsRecycled) {
  const auto dataset = std::make_shared<FakeDataset>(64);
  LoaderOptions options = small_options(2);
  options.prefetch = 2;
  Loader loader(dataset, options);
  std::set<const void*> buffers;
  Batch batch;
  for (std::uint64_t epoch = 0; epoch < 5; ++epoch) {
    loader.start_epoch(epoch);
    while (loader.next(batch)) buffers.insert(batch.bytes.data());
  }
  EXPECT_LE(buffers.size(), 3U);
}

TEST(LoaderTest, TheEarliestErrorIsReported) {
  const auto dataset = std::make_shared<FakeDataset>(150, std::set<std::size_t>{37, 38, 44, 99, 100});
  for (const int workers : {0, 1, 2, 4, 16}) {
    LoaderOptions options = small_options(workers);
    options.shuffle = false;
    Loader loader(dataset, options);
    loader.start_epoch(0);
    EXPECT_TRUE(loader.next().has_value());
    EXPECT_TRUE(loader.next().has_value());
    const std::string message = message_of<FormatError>([&] { loader.next(); });
    EXPECT_EQ(message, "[fake/37] broken on purpose");
    EXPECT_FALSE(loader.next().has_value());
    loader.start_epoch(1, 112);  // usable afterwards
    EXPECT_TRUE(loader.next().has_value());
  }
}

TEST(LoaderTest, BadImagesAreReplacedDeterministically) {
  const std::set<std::size_t> broken = {3, 5, 17, 18, 80, 149};
  const auto dataset = std::make_shared<FakeDataset>(150, broken);
  LoaderOptions options = small_options(0);
  options.bad_images = BadImages::skip;
  const Epoch expected = run_epoch(dataset, options, 2);
  const std::set<std::int64_t> seen(expected.indices.begin(), expected.indices.end());
  EXPECT_EQ(expected.indices.size(), 150U);
  EXPECT_EQ(seen.size(), 144U);
  for (std::size_t i = 0; i < 150; ++i) EXPECT_EQ(expected.labels[i], expected.indices[i] % 3);

  std::vector<std::size_t> first_order;
  for (const int workers : {1, 2, 16}) {
    options.workers = workers;
    Loader loader(dataset, options);
    for (int repeat = 0; repeat < 2; ++repeat) {
      loader.start_epoch(2);
      EXPECT_TRUE(drain(loader) == expected);
      EXPECT_EQ(loader.bad_count(), 6U);
    }
    ASSERT_EQ(loader.bad_images().size(), 6U);
    std::vector<std::size_t> order;
    for (const BadImage& bad : loader.bad_images()) {
      order.push_back(bad.index);
      EXPECT_EQ(bad.reason, "[fake/" + std::to_string(bad.index) + "] broken on purpose");
    }
    if (first_order.empty()) first_order = order;
    EXPECT_EQ(order, first_order);
  }
}

TEST(LoaderTest, NothingReadableIsAnErrorEvenWhenSkipping) {
  const auto dataset = std::make_shared<FakeDataset>(3, std::set<std::size_t>{0, 1, 2});
  LoaderOptions options = small_options(2);
  options.bad_images = BadImages::skip;
  Loader loader(dataset, options);
  loader.start_epoch(0);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { loader.next(); }), "no readable sample"));
}

TEST(LoaderTest, ErrorsOfOtherKindsArriveToo) {
  class Failing : public FakeDataset {
    using FakeDataset::FakeDataset;
    void fetch(std::size_t, Record&) const override { throw std::bad_alloc(); }
  };
  LoaderOptions options = small_options(2);
  options.bad_images = BadImages::skip;
  Loader loader(std::make_shared<Failing>(50), options);
  loader.start_epoch(0);
  EXPECT_THROW(loader.next(), std::bad_alloc);
}

TEST(LoaderTest, AnImageOfTheWrongSizeNamesItself) {
  LoaderOptions options = small_options(2);
  options.pipeline.augment = Augment::none;
  options.shuffle = false;
  Loader loader(std::make_shared<FakeDataset>(50), options);
  loader.start_epoch(0);
  const std::string message = message_of<ShapeError>([&] { loader.next(); });
  EXPECT_TRUE(contains(message, "[fake/0]") && contains(message, "20 x 18")) << message;
  EXPECT_THROW(Loader(std::make_shared<FakeDataset>(50, std::set<std::size_t>{}, 32), options), ShapeError);
}

TEST(LoaderTest, FloatImagesPassThrough) {
  class Floats : public FakeDataset {
    using FakeDataset::FakeDataset;
    Content content() const override { return Content::floats; }
    void fetch(std::size_t index, Record& sample) const override {
      sample.values.assign(12 * 12 * 3, static_cast<float>(index) / 8);
      sample.label = 1;
    }
  };
  const auto dataset = std::make_shared<Floats>(40, std::set<std::size_t>{}, 12);
  LoaderOptions options = small_options(2);
  EXPECT_THROW(Loader(dataset, options), ValueError);
  options.pipeline.augment = Augment::none;
  Loader loader(dataset, options);
  loader.start_epoch(0);
  while (const std::optional<Batch> batch = loader.next()) {
    EXPECT_TRUE(batch->bytes.empty());
    ASSERT_EQ(batch->floats.size(), static_cast<std::size_t>(batch->count) * 12 * 12 * 3);
    EXPECT_EQ(batch->floats[0], static_cast<float>(batch->indices[0]) / 8);
  }
}

TEST(LoaderTest, RefusesOptionsOutOfRange) {
  const auto dataset = std::make_shared<FakeDataset>(10);
  const auto refused = [&](const std::function<void(LoaderOptions&)>& change) {
    LoaderOptions options = small_options(1);
    change(options);
    EXPECT_THROW(Loader(dataset, options), ValueError);
  };
  refused([](LoaderOptions& o) { o.batch_size = 0; });
  refused([](LoaderOptions& o) { o.workers = -1; });
  refused([](LoaderOptions& o) { o.workers = 100000; });
  refused([](LoaderOptions& o) { o.prefetch = 0; });
  refused([](LoaderOptions& o) { o.drop_last = true; });  // 10 samples, batches of 16
  EXPECT_THROW(Loader(std::make_shared<FakeDataset>(0), small_options(1)), ValueError);
}

// What is waited for is what next() takes: all of the reading where it is done there, and never more than the
// caller sees.
TEST(LoaderTest, WaitingIsTheTimeSpentInNext) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  class Timed : public FakeDataset {
   public:
    using FakeDataset::FakeDataset;
    void fetch(std::size_t index, Record& record) const override {
      const auto start = Clock::now();
      FakeDataset::fetch(index, record);
      time += Clock::now() - start;
    }
    mutable Clock::duration time{};
  };
  const auto dataset = std::make_shared<Timed>(64);
  for (const int workers : {0, 1}) {
    Loader loader(dataset, small_options(workers));
    Clock::duration outside{};
    dataset->time = {};
    loader.start_epoch(0);
    Batch batch;
    for (bool more = true; more;) {
      const auto start = Clock::now();
      more = loader.next(batch);
      outside += Clock::now() - start;
    }
    EXPECT_GT(loader.wait_seconds(), 0);
    EXPECT_LE(loader.wait_seconds(), seconds(outside));
    if (workers == 0) {
      EXPECT_GE(loader.wait_seconds(), seconds(dataset->time));
    }
  }
}

TEST(LoaderTest, CanBeDestroyedAtAnyTime) {
  const auto dataset = std::make_shared<FakeDataset>(500);
  for (int taken = 0; taken < 8; ++taken) {
    Loader loader(dataset, small_options(1 + taken));
    if (taken > 0) loader.start_epoch(0);
    for (int i = 1; i < taken; ++i) EXPECT_TRUE(loader.next().has_value());
  }
}

}  // namespace
}  // namespace qtrain::data
