// That loading takes no memory for each sample: a program of its own, as it replaces operator new by one that
// counts. libjpeg's pools, which come from malloc, don't count.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <new>

#include "data/loader/loader.h"
#include "data/sets/image_folder.h"
#include "tests/data/support.h"

namespace {

std::atomic<std::size_t> allocations{0};

void* counted(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) {
  return counted(bytes);
}
void* operator new[](std::size_t bytes) {
  return counted(bytes);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace qtrain::data {
namespace {

constexpr std::size_t samples = 1600;

// JPEG files of one size, or pixels. Names are too long for the space within a std::string.
class InMemory final : public Dataset {
 public:
  explicit InMemory(Content content) : content_(content) {
    std::size_t largest = 0;
    for (std::uint64_t i = 0; i < 4; ++i) {
      images_.push_back(noise_image(16, 16, i));
      files_.push_back(encode_jpeg(images_.back(), 90));
      largest = std::max(largest, files_.back().size());
    }
    for (std::vector<std::byte>& file : files_)
      file.resize(largest);  // decoders stop at the end of the image
  }

  std::size_t size() const override { return samples; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Content content() const override { return content_; }
  void fetch(std::size_t index, Record& record) const override {
    std::array<char, 20> digits{};
    char* const end = std::to_chars(digits.data(), digits.data() + digits.size(), index).ptr;
    record.name.assign("a name of many letters, number ").append(digits.data(), end);
    record.label = static_cast<std::int64_t>(index % 2);
    if (content_ == Content::pixels) {
      record.image.width = record.image.height = 16;
      record.image.rgb = images_[index % 4].rgb;
    } else {
      record.buffer = files_[index % 4];
      record.file = record.buffer;
    }
  }
  std::string describe(std::size_t index) const override { return std::to_string(index); }

 private:
  Content content_;
  std::vector<std::string> names_ = {"a", "b"};
  std::vector<Image> images_;
  std::vector<std::vector<std::byte>> files_;
};

// Allocations of the third epoch. Random crops are of the whole image, so that the largest one is known from
// the start.
std::size_t steady_allocations(const std::shared_ptr<const Dataset>& dataset, int workers, int readers,
                               Augment augment = Augment::cifar) {
  LoaderOptions options;
  options.batch_size = 32;
  options.workers = workers;
  options.readers = readers;
  options.read_ahead.samples = 16;
  options.pipeline.image_size = augment == Augment::cifar ? 16 : 12;
  options.pipeline.augment = augment;
  options.pipeline.scale_low = options.pipeline.ratio_low = options.pipeline.ratio_high = 1;
  Loader loader(dataset, options);
  Batch batch;
  std::size_t before = 0;
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    before = allocations;
    loader.start_epoch(epoch);
    std::size_t seen = 0;
    while (loader.next(batch)) seen += static_cast<std::size_t>(batch.count);
    EXPECT_EQ(seen, samples);
  }
  return allocations - before;
}

TEST(AllocationTest, TheCounterCounts) {
  const std::size_t before = allocations;
  const auto vector = std::make_unique<std::vector<int>>(100);
  EXPECT_EQ(allocations - before, 2U);
}

TEST(AllocationTest, AnEpochTakesNoMemory) {
  for (const Content content : {Content::pixels, Content::files}) {
    const auto dataset = std::make_shared<InMemory>(content);
    for (const Augment augment : {Augment::cifar, Augment::imagenet, Augment::resize}) {
      EXPECT_EQ(steady_allocations(dataset, 0, 0, augment), 0U);
      EXPECT_EQ(steady_allocations(dataset, 1, 0, augment), 0U);
    }
  }
}

// Which thread and which entry of the ring gets a sample isn't determined, so that one of them may take
// memory for its first sample at any time: at most name and buffer of 16 entries and 3 threads, and what
// these need.
TEST(AllocationTest, WithReadersThreadsAndRingTakeMemoryOnceOnly) {
  EXPECT_LE(steady_allocations(std::make_shared<InMemory>(Content::files), 3, 2), 60U);
  EXPECT_LE(steady_allocations(std::make_shared<InMemory>(Content::pixels), 3, 2), 60U);
}

TEST(AllocationTest, AnImageFolderFetchesIntoTheMemoryOfItsRecord) {
  const TemporaryFolder folder;
  for (const char* name : {"train/cat/1.jpg", "train/dog/2.jpg", "val/cat/1.jpg", "val/dog/1.jpg"})
    put(folder.path() / name, std::vector<std::byte>(1000));
  const auto set = open_image_folder(folder.path(), Split::train, {});
  Record record;
  for (std::size_t i = 0; i < 2; ++i) set->fetch(i, record);
  const std::size_t before = allocations;
  for (std::size_t i = 0; i < 100; ++i) set->fetch(i % 2, record);
  EXPECT_EQ(allocations - before, 0U);
}

}  // namespace
}  // namespace qtrain::data
