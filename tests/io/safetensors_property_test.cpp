// Properties over random files: what is written is read, rewriting gives the same bytes, and no damage
// crashes.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/io/atomic_file.h"
#include "engine/io/safetensors.h"
#include "tests/io/io_test_support.h"

namespace qtrain {
namespace {

using testing::message_of;
using testing::random_bytes;
using testing::TemporaryFolder;

struct Sample {
  std::vector<std::vector<std::byte>> buffers;
  std::vector<TensorToWrite> tensors;
  std::map<std::string, std::string> metadata;
};

std::string random_name(RandomStream& random) {
  const char* const parts[] = {"conv", ".", "0", "w\"", "\\", "\n", "\xC3\xA9", "\xF0\x9F\x98\x80",
                               " ",    "/", "bn"};
  std::string name;
  for (std::uint64_t i = random.below(6); i > 0; --i) name += parts[random.below(std::size(parts))];
  return name;
}

Sample random_sample(std::uint64_t index) {
  RandomStream random(1, RandomPurpose::user, 0, index);
  const std::pair<const char*, std::size_t> dtypes[] = {{"BOOL", 1}, {"U8", 1},  {"F8_E4M3", 1}, {"I16", 2},
                                                        {"BF16", 2}, {"F32", 4}, {"I64", 8},     {"C64", 8}};
  Sample sample;
  std::set<std::string> names;
  const std::uint64_t count = random.below(9);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto& [dtype, size] = dtypes[random.below(std::size(dtypes))];
    std::vector<std::int64_t> shape;
    std::size_t bytes = size;
    for (std::uint64_t d = random.below(5); d > 0; --d) {
      shape.push_back(static_cast<std::int64_t>(random.below(6)));
      bytes *= static_cast<std::size_t>(shape.back());
    }
    std::string name = random_name(random);
    while (!names.insert(name).second) name += "+";
    sample.buffers.push_back(random_bytes(random, bytes));
    sample.tensors.push_back({name, dtype, shape, sample.buffers.back()});
  }
  for (std::uint64_t i = random.below(4); i > 0; --i)
    sample.metadata[random_name(random)] = random_name(random);
  return sample;
}

std::vector<TensorToWrite> as_input(const SafetensorsFile& file) {
  std::vector<TensorToWrite> tensors;
  for (const TensorEntry& entry : file.entries())
    tensors.push_back({entry.name, entry.dtype, entry.shape, entry.bytes});
  return tensors;
}

TEST(SafetensorsProperty, RoundTripAndIdenticalRewriting) {
  const TemporaryFolder folder;
  for (std::uint64_t i = 0; i < 60; ++i) {
    const Sample sample = random_sample(i);
    const auto path = folder / "a.safetensors";
    write_safetensors(path, sample.tensors, sample.metadata);
    const SafetensorsFile file = SafetensorsFile::open(path);
    ASSERT_EQ(file.entries().size(), sample.tensors.size());
    EXPECT_EQ(file.metadata(), sample.metadata);
    for (const TensorToWrite& tensor : sample.tensors) {
      const TensorEntry& entry = file.at(tensor.name);
      EXPECT_EQ(entry.dtype, tensor.dtype);
      EXPECT_EQ(entry.shape, tensor.shape);
      EXPECT_TRUE(std::ranges::equal(entry.bytes, tensor.bytes));
    }
    std::vector<TensorToWrite> shuffled = as_input(file);
    std::reverse(shuffled.begin(), shuffled.end());
    write_safetensors(folder / "b.safetensors", shuffled, file.metadata());
    EXPECT_EQ(read_file(path), read_file(folder / "b.safetensors"));
  }
}

TEST(SafetensorsProperty, DataIsAlignedAndOrderedAsTheReferenceDoes) {
  const TemporaryFolder folder;
  const std::vector<std::byte> data(8);
  const std::span<const std::byte> all(data);
  write_safetensors(folder / "a", {{"a", "U8", {1}, all.first(1)},
                                   {"c", "F32", {1}, all.first(4)},
                                   {"b", "F32", {}, all.first(4)},
                                   {"d", "I64", {1}, all},
                                   {"e", "BF16", {1}, all.first(2)}});
  const std::vector<std::byte> bytes = read_file(folder / "a");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ(length % 8, 0U);
  std::string order;
  const SafetensorsFile file = SafetensorsFile::open(folder / "a");
  for (const TensorEntry& entry : file.entries()) order += entry.name;
  EXPECT_EQ(order, "dbcea");
}

TEST(SafetensorsProperty, FileOutlivesMovesAndCopies) {
  const TemporaryFolder folder;
  const std::vector<std::byte> data = testing::bytes_of("12345678");
  write_safetensors(folder / "a", {{"t", "U8", {8}, data}});
  auto file = std::make_unique<SafetensorsFile>(SafetensorsFile::open(folder / "a"));
  const SafetensorsFile copy = *file;
  const SafetensorsFile moved = std::move(*file);
  file.reset();
  std::filesystem::remove(folder / "a");
  EXPECT_TRUE(std::ranges::equal(copy.at("t").bytes, data));
  EXPECT_TRUE(std::ranges::equal(moved.at("t").bytes, data));
}

TEST(SafetensorsWriter, RefusesWhatNoReaderWouldTake) {
  const TemporaryFolder folder;
  const std::vector<std::byte> data(8);
  const auto refused = [&](std::vector<TensorToWrite> tensors,
                           std::map<std::string, std::string> metadata = {}) {
    return message_of<ValueError>([&] { write_safetensors(folder / "x", tensors, metadata); });
  };
  EXPECT_NE(refused({{"a", "F99", {2}, data}}).find("'F99'"), std::string::npos);
  EXPECT_NE(refused({{"a", "F32", {3}, data}}).find("12 bytes for F32[3]"), std::string::npos);
  EXPECT_NE(refused({{"a", "F32", {-2}, data}}).find("negative"), std::string::npos);
  EXPECT_NE(refused({{"a", "F32", {INT64_MAX, 8}, data}}).find("overflowing"), std::string::npos);
  EXPECT_NE(refused({{"a", "F4", {3}, data}}).find("whole bytes"), std::string::npos);
  EXPECT_NE(refused({{"a", "F32", {2}, data}, {"a", "U8", {8}, data}}).find("given twice"),
            std::string::npos);
  EXPECT_NE(refused({{"__metadata__", "F32", {2}, data}}).find("reserved"), std::string::npos);
  EXPECT_NE(refused({{"\xFF", "F32", {2}, data}}).find("UTF-8"), std::string::npos);
  EXPECT_NE(refused({}, {{"k", "\xFF"}}).find("UTF-8"), std::string::npos);
  EXPECT_TRUE(folder.names().empty());
}

TEST(SafetensorsDamage, EveryTruncationIsRefused) {
  const TemporaryFolder folder;
  const Sample sample = random_sample(7);
  ASSERT_FALSE(sample.tensors.empty());
  write_safetensors(folder / "a", sample.tensors, sample.metadata);
  const std::vector<std::byte> whole = read_file(folder / "a");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto cut = std::span(whole).first(size);
    EXPECT_THROW(SafetensorsFile::parse({cut.begin(), cut.end()}, "cut"), FormatError) << size;
    if (size % 16 == 0) {
      write_file_atomically(folder / "cut", cut);
      EXPECT_THROW(SafetensorsFile::open(folder / "cut"), FormatError) << size;
    }
  }
}

// One random edit: a flipped bit, a changed, removed or inserted byte, a swapped digit, a doubled stretch.
void mutate(std::vector<std::byte>& file, RandomStream& random) {
  const auto at = static_cast<std::ptrdiff_t>(random.below(file.size()));
  const auto place = file.begin() + at;
  switch (random.below(6)) {
    case 0:
      *place ^= static_cast<std::byte>(1U << random.below(8));
      break;
    case 1:
      *place = static_cast<std::byte>(random.below(256));
      break;
    case 2:
      file.erase(place);
      break;
    case 3:
      file.insert(place, static_cast<std::byte>(random.below(256)));
      break;
    case 4:
      *place = static_cast<std::byte>("0123456789{}[],:\"- \\e."[random.below(22)]);
      break;
    default: {
      const auto length =
          static_cast<std::ptrdiff_t>(random.below(static_cast<std::uint64_t>(file.end() - place)));
      const std::vector<std::byte> stretch(place, place + length);
      file.insert(place, stretch.begin(), stretch.end());
    }
  }
}

TEST(SafetensorsDamage, TwentyThousandMutationsNeverCrash) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", random_sample(7).tensors, {{"note", "text"}});
  const std::vector<std::byte> whole = read_file(folder / "a");
  std::size_t accepted = 0;
  std::size_t touched = 0;
  for (std::uint64_t i = 0; i < 20'000; ++i) {
    RandomStream random(2, RandomPurpose::user, 0, i);
    std::vector<std::byte> file = whole;
    for (std::uint64_t edits = 1 + random.below(4); edits > 0 && !file.empty(); --edits) mutate(file, random);
    try {
      const SafetensorsFile parsed = SafetensorsFile::parse(std::move(file), "mutated");
      ++accepted;
      for (const TensorEntry& entry : parsed.entries())
        for (const std::byte b : entry.bytes) touched += static_cast<std::size_t>(b) & 1U;
    } catch (const FormatError&) {  // the only way out
    }
  }
  EXPECT_GT(accepted, 0U);  // changes of the payload alone
  EXPECT_LT(accepted, 20'000U);
  EXPECT_GT(touched, 0U);
}

}  // namespace
}  // namespace qtrain
