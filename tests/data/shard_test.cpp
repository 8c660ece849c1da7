// Several processes that share a data set.
#include <algorithm>

#include "tests/data/fake_dataset.h"

namespace qtrain::data {
namespace {

LoaderOptions part(std::size_t rank, std::size_t world_size) {
  LoaderOptions options = small_options(2);
  options.batch_size = 6;
  options.shard = {rank, world_size};
  return options;
}

std::vector<std::vector<std::int64_t>> batches_of(const std::shared_ptr<const Dataset>& dataset,
                                                  const LoaderOptions& options, std::uint64_t epoch,
                                                  std::size_t first = 0) {
  std::vector<std::vector<std::int64_t>> batches;
  Loader loader(dataset, options);
  loader.start_epoch(epoch, first);
  for (Batch batch; loader.next(batch);) batches.push_back(batch.indices);
  return batches;
}

TEST(ShardTest, StepsOfAllProcessesAreThoseOfASingleOneWithTheirBatchesTogether) {
  for (const std::size_t samples : {1U, 72U, 97U, 100U}) {
    const auto dataset = std::make_shared<FakeDataset>(samples);
    for (const std::size_t world : {1U, 2U, 3U, 5U}) {
      if (samples < world) continue;
      LoaderOptions single = part(0, 1);
      single.batch_size = 6 * world;
      const auto expected = batches_of(dataset, single, 7);
      std::vector<std::vector<std::int64_t>> together(expected.size());
      for (std::size_t rank = 0; rank < world; ++rank) {
        const auto own = batches_of(dataset, part(rank, world), 7);
        ASSERT_LE(own.size(), expected.size());
        for (std::size_t k = 0; k < own.size(); ++k)
          together[k].insert(together[k].end(), own[k].begin(), own[k].end());
      }
      for (std::size_t k = 0; k < expected.size(); ++k) {
        EXPECT_TRUE(std::ranges::is_permutation(together[k], expected[k]))
            << samples << " samples, " << world << " processes, step " << k;
      }
    }
  }
}

TEST(ShardTest, PartsDifferByOneSampleAtMost) {
  for (const std::size_t samples : {10U, 11U, 97U}) {
    std::set<std::int64_t> seen;
    std::size_t least = samples;
    std::size_t most = 0;
    std::size_t all = 0;
    for (std::size_t rank = 0; rank < 4; ++rank) {
      LoaderOptions options = part(rank, 4);
      options.shuffle = false;
      std::size_t count = 0;
      for (const auto& batch : batches_of(std::make_shared<FakeDataset>(samples), options, 0)) {
        count += batch.size();
        seen.insert(batch.begin(), batch.end());
      }
      least = std::min(least, count);
      most = std::max(most, count);
      all += count;
    }
    EXPECT_LE(most - least, 1U);
    EXPECT_EQ(all, samples);
    EXPECT_EQ(seen.size(), samples);
  }
}

TEST(ShardTest, WithDropLastAllHaveTheSameNumberOfFullBatches) {
  for (std::size_t samples = 36; samples <= 60; ++samples) {
    for (std::size_t rank = 0; rank < 3; ++rank) {
      LoaderOptions options = part(rank, 3);
      options.drop_last = true;
      const auto dataset = std::make_shared<FakeDataset>(samples);
      const auto batches = batches_of(dataset, options, 1);
      EXPECT_EQ(batches.size(), samples / 18) << samples;
      EXPECT_EQ(Loader(dataset, options).batches_per_epoch(), batches.size());
      for (const auto& batch : batches) EXPECT_EQ(batch.size(), 6U);
    }
  }
}

TEST(ShardTest, AProcessResumesInTheMiddleOfAnEpoch) {
  const auto dataset = std::make_shared<FakeDataset>(97);
  for (const bool drop_last : {false, true}) {
    for (std::size_t rank = 0; rank < 3; ++rank) {
      LoaderOptions options = part(rank, 3);
      options.drop_last = drop_last;
      const auto whole = batches_of(dataset, options, 2);
      const auto rest = batches_of(dataset, options, 2, 2 * options.batch_size);
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), whole.begin() + 2, whole.end()));
    }
  }
}

TEST(ShardTest, RefusesRanksThatDoNotExistAndPartsWithoutSamples) {
  const auto dataset = std::make_shared<FakeDataset>(10);
  EXPECT_THROW(Loader(dataset, part(2, 2)), ValueError);
  EXPECT_THROW(Loader(dataset, part(0, 0)), ValueError);
  EXPECT_THROW(Loader(dataset, part(0, 11)), ValueError);
  LoaderOptions options = part(0, 2);
  options.drop_last = true;
  EXPECT_THROW(Loader(dataset, options), ValueError) << "5 samples each, batches of 6";
}

}  // namespace
}  // namespace qtrain::data
