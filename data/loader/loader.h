// Batches of an epoch, read ahead by worker threads. What a batch holds depends on the seed and the epoch
// only: every random choice is a function of (seed, epoch, sample), so neither the number of workers nor
// their timing shows.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "data/augment/mix.h"
#include "data/augment/transform.h"
#include "data/dataset.h"
#include "data/loader/epoch_order.h"
#include "data/loader/read_ahead.h"
#include "data/loader/sample_reader.h"

namespace qtrain::data {

struct LoaderOptions {
  std::size_t batch_size = 64;
  std::uint64_t seed = 0;
  bool shuffle = true;     // else the dataset's order
  bool drop_last = false;  // leave out a last batch that isn't full
  int workers = 2;         // threads; 0 reads in the thread that calls next()
  int readers = 4;         // threads that fetch files ahead of the workers; 0: each worker for itself
  ReadAhead::Limits read_ahead{};
  std::size_t prefetch = 4;  // batches that may be ready or in work at a time
  Shard shard{};             // the part of each epoch that this process loads
  PipelineOptions pipeline{};
  MixOptions mix{};
  BadImages bad_images = BadImages::fail;
  Backend* device = nullptr;  // that copies the batches: they lie in memory that it reads directly
};

class Loader {
 public:
  // Throws ValueError for an option out of its range or an epoch without batches, and what SampleReader
  // throws.
  Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options);
  ~Loader();  // at any time, in the middle of an epoch too
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Begins an epoch at a place of its order, counted in samples of this process: resuming after k batches of
  // size B, pass k*B. What was left of an earlier epoch is dropped.
  void start_epoch(std::uint64_t epoch, std::size_t first_sample = 0);

  // The next batch; false (or nothing) at the end of the epoch. The first form takes back the memory of
  // `batch`, so that a loop allocates nothing; a device may still be copying from it. Throws the error of the
  // earliest unreadable sample, in order of the epoch, in the batch where it belongs; the epoch is over then.
  bool next(Batch& batch);
  std::optional<Batch> next();

  std::size_t batches_per_epoch() const;
  const EpochOrder& order() const;  // of the epoch that was started last
  const LoaderOptions& options() const;

  // Seconds that next() has waited for data, over all epochs.
  double wait_seconds() const;

  // Different unreadable samples met so far in the batches that next() returned, and the first few of them.
  std::size_t bad_count() const;
  const std::vector<BadImage>& bad_images() const;

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace qtrain::data
