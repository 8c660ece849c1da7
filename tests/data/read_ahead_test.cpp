// Files fetched ahead by reader threads, and what the loader makes of them.
#include "data/loader/read_ahead.h"

#include <condition_variable>
#include <mutex>

#include "engine/backend/cpu/cpu_backend.h"
#include "tests/data/fake_dataset.h"

namespace qtrain::data {
namespace {

// Image files in memory, handed out as copies or as they lie; noted in the order in which they are fetched.
class FakeFiles : public FakeDataset {
 public:
  explicit FakeFiles(std::size_t size, std::set<std::size_t> broken = {}, bool copies = true)
      : FakeDataset(size), broken_(std::move(broken)), copies_(copies) {
    for (std::uint64_t i = 0; i < 8; ++i)
      files_.push_back(encode_jpeg(noise_image(17 + static_cast<int>(i), 15, i), 90));
  }

  Content content() const override { return Content::files; }
  Size image_size() const override { return {}; }
  void fetch(std::size_t index, Record& record) const override {
    ++loads;
    record.name = describe(index);
    record.label = static_cast<std::int64_t>(index % 3);
    if (broken_.contains(index)) throw IoError({.where = record.name, .what = "gone"});
    const std::vector<std::byte>& file = files_[index % files_.size()];
    if (copies_) record.buffer = file;
    record.file = copies_ ? record.buffer : file;
    const std::scoped_lock lock(mutex_);
    by_.push_back(std::this_thread::get_id());
  }
  std::set<std::thread::id> threads() const {
    const std::scoped_lock lock(mutex_);
    return {by_.begin(), by_.end()};
  }

 private:
  std::set<std::size_t> broken_;
  bool copies_;
  std::vector<std::vector<std::byte>> files_;
  mutable std::mutex mutex_;
  mutable std::vector<std::thread::id> by_;
};

LoaderOptions reading(int workers, int readers, std::size_t ring) {
  LoaderOptions options = small_options(workers);
  options.readers = readers;
  options.read_ahead.samples = ring;
  return options;
}

TEST(ReadAheadTest, ReadersChangeNoBatch) {
  for (const bool copies : {true, false}) {
    const auto dataset = std::make_shared<FakeFiles>(150, std::set<std::size_t>{}, copies);
    const Epoch expected = run_epoch(dataset, small_options(0), 3);
    for (const int workers : {0, 1, 4, 16})
      for (const int readers : {0, 1, 3})
        for (const std::size_t ring : {1U, 2U, 7U, 128U})
          EXPECT_TRUE(run_epoch(dataset, reading(workers, readers, ring), 3) == expected)
              << workers << " workers, " << readers << " readers, ring of " << ring;
  }
}

TEST(ReadAheadTest, ErrorsComeInOrderFromReadersToo) {
  const auto dataset = std::make_shared<FakeFiles>(150, std::set<std::size_t>{37, 38, 44, 99});
  for (const int readers : {0, 1, 4}) {
    LoaderOptions options = reading(3, readers, 40);
    options.shuffle = false;
    Loader loader(dataset, options);
    for (int repeat = 0; repeat < 3; ++repeat) {
      loader.start_epoch(0);
      EXPECT_TRUE(loader.next().has_value());
      EXPECT_TRUE(loader.next().has_value());
      EXPECT_EQ(message_of<IoError>([&] { loader.next(); }), "[fake/37] gone");
      EXPECT_FALSE(loader.next().has_value());
    }
    options.bad_images = BadImages::skip;
    EXPECT_TRUE(run_epoch(dataset, options, 4) == [&] {
      options.workers = 0;
      return run_epoch(dataset, options, 4);
    }());
  }
}

TEST(ReadAheadTest, EpochsCanBeLeftAndLoadersDestroyedAtAnyTime) {
  const auto dataset = std::make_shared<FakeFiles>(300);
  const Epoch expected = run_epoch(dataset, small_options(0), 1);
  for (int round = 0; round < 12; ++round) {
    Loader loader(dataset, reading(1 + round % 4, 1 + round % 3, 16));
    for (int taken = 0; taken < round % 5; ++taken) {
      loader.start_epoch(0);
      for (int i = 0; i < taken; ++i) EXPECT_TRUE(loader.next().has_value());
    }
    loader.start_epoch(1);
    if (round % 2 == 0) {
      EXPECT_TRUE(drain(loader) == expected);
    }
  }
}

// Readers fill the ring while nobody decodes, and no more than the ring.
TEST(ReadAheadTest, TheRingIsBoundedByCountAndByBytes) {
  const auto dataset = std::make_shared<FakeFiles>(1000);
  const SampleReader reader(dataset, {.image_size = 12}, 0, BadImages::fail);
  const EpochOrder order(1000, false, 0, 0, {});
  const auto read_until_full = [&](const ReadAhead::Limits& limits, std::size_t expected) {
    dataset->loads = 0;
    ReadAhead ahead(reader, 2, limits);
    ahead.start(order, 0);
    while (dataset->loads < expected) std::this_thread::yield();
    for (int i = 0; i < 200; ++i) std::this_thread::yield();
    EXPECT_LE(dataset->loads, expected + 1) << "two readers may have begun at once";
  };
  read_until_full({.samples = 20}, 20);
  Record record;
  dataset->fetch(0, record);
  const std::size_t bytes = record.buffer.size();
  read_until_full({.samples = 900, .bytes = 5 * bytes}, 5);  // files grow a little with their number
}

// A decoder that gets to a place before the readers takes it as its own.
TEST(ReadAheadTest, ClaimersFetchWhatNoReaderHasBegun) {
  const auto dataset = std::make_shared<FakeFiles>(100);
  const SampleReader reader(dataset, {.image_size = 12}, 0, BadImages::fail);
  const EpochOrder order(100, false, 0, 0, {});
  ReadAhead none(reader, 0, {});
  none.start(order, 0);
  EXPECT_EQ(none.claim(0, 10), 0U);

  ReadAhead ahead(reader, 1, {.samples = 8});
  ahead.start(order, 10);
  while (dataset->loads < 8) std::this_thread::yield();
  EXPECT_EQ(ahead.claim(10, 30), 18U) << "eight places lie in the ring";
  for (std::size_t place = 10; place < 18; ++place) {
    const Fetched& fetched = ahead.wait_for(place);
    EXPECT_EQ(fetched.index, place);
    EXPECT_EQ(fetched.record.name, "fake/" + std::to_string(place));
  }
  EXPECT_EQ(dataset->loads, 8U);
  ahead.give_back(10, 18);
  while (dataset->loads < 16) std::this_thread::yield();
  EXPECT_EQ(ahead.claim(30, 33), 33U) << "reading went on behind the claim";
  for (std::size_t place = 30; place < 33; ++place) EXPECT_EQ(ahead.wait_for(place).index, place);
  ahead.give_back(30, 33);
}

TEST(ReadAheadTest, SamplesInMemoryHaveNoReaders) {
  const auto pixels = std::make_shared<FakeDataset>(100);
  LoaderOptions options = reading(1, 4, 64);
  options.prefetch = 1;
  Loader loader(pixels, options);
  loader.start_epoch(0);
  EXPECT_TRUE(loader.next().has_value());
  for (int i = 0; i < 100; ++i) std::this_thread::yield();
  EXPECT_LE(pixels->loads, 32U);
}

// Blocks every fetch until as many threads are in one at the same time. A lock held around fetching, or
// around the work on samples in memory, would block this forever.
template <class Base>
class Together final : public Base {
 public:
  explicit Together(int threads) : Base(200), threads_(threads) {}
  void fetch(std::size_t index, Record& record) const override {
    std::unique_lock lock(mutex_);
    ++inside_;
    if (inside_ == threads_) met_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return met_; });
    --inside_;
    lock.unlock();
    Base::fetch(index, record);
  }

 private:
  int threads_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable int inside_ = 0;
  mutable bool met_ = false;
};

TEST(ReadAheadTest, FilesAreAskedForByReadersAndIdleWorkersAtOnce) {
  const Epoch expected = run_epoch(std::make_shared<FakeFiles>(200), small_options(0), 1);
  EXPECT_TRUE(run_epoch(std::make_shared<Together<FakeFiles>>(5), reading(1, 5, 32), 1) == expected);
  EXPECT_TRUE(run_epoch(std::make_shared<Together<FakeFiles>>(3), reading(3, 0, 32), 1) == expected);
}

TEST(ReadAheadTest, WorkersWorkAtTheSameTime) {
  const Epoch expected = run_epoch(std::make_shared<FakeDataset>(200), small_options(0), 1);
  EXPECT_TRUE(run_epoch(std::make_shared<Together<FakeDataset>>(4), small_options(4), 1) == expected);
}

// Host memory that "copies" read until they are declared done.
class SlowCopies final : public CpuBackend {
 public:
  void* allocate_host(std::size_t bytes) override {
    ++allocated;
    return CpuBackend::allocate_host(bytes);
  }
  void release_host(void* memory) noexcept override { released_.emplace_back(memory); }
  bool is_host_idle(const void* memory) const override { return !busy.contains(memory); }

  std::set<const void*> busy;
  int allocated = 0;

 private:
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory); }
  };
  std::vector<std::unique_ptr<void, Free>> released_;
};

TEST(LoaderMemoryTest, ABatchIsNotWrittenWhileADeviceCopiesFromIt) {
  const auto dataset = std::make_shared<FakeDataset>(16 * 12);
  SlowCopies device;
  LoaderOptions options = small_options(2);
  options.device = &device;
  options.prefetch = 2;
  std::set<const void*> under_way;
  Loader loader(dataset, options);
  loader.start_epoch(0);
  Batch batch;
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(loader.next(batch));
    EXPECT_FALSE(under_way.contains(batch.bytes.data()));
    under_way.insert(batch.bytes.data());
    device.busy.insert(batch.bytes.data());
  }
  EXPECT_EQ(device.allocated, 2 + 6) << "the slots' memory, and some for each that came back too early";

  device.busy.clear();
  const int before = device.allocated;
  while (loader.next(batch)) {
  }
  EXPECT_EQ(device.allocated, before) << "what came back idle was used again";
}

}  // namespace
}  // namespace qtrain::data
