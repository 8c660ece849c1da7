#include "data/loader/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <iterator>
#include <mutex>
#include <set>
#include <stop_token>
#include <thread>
#include <utility>

#include "data/loader/mix_batch.h"
#include "engine/core/error.h"
#include "engine/core/rng.h"

namespace qtrain::data {
namespace {

void require(bool ok, const char* option, const std::string& got, const char* expected) {
  if (!ok)
    throw ValueError({.where = option, .what = "option out of range", .got = got, .expected = expected});
}

void check(const LoaderOptions& options, std::size_t samples) {
  require(options.batch_size >= 1 && options.batch_size <= 65536, "batch size",
          std::to_string(options.batch_size), "1 to 65536");
  require(options.workers >= 0 && options.workers <= 256, "workers", std::to_string(options.workers),
          "0 to 256");
  require(options.readers >= 0 && options.readers <= 256, "readers", std::to_string(options.readers),
          "0 to 256");
  require(options.read_ahead.samples >= 1 && options.read_ahead.samples <= 65536, "samples read ahead",
          std::to_string(options.read_ahead.samples), "1 to 65536");
  require(options.prefetch >= 1 && options.prefetch <= 1024, "prefetch", std::to_string(options.prefetch),
          "1 to 1024 batches");
  require(samples >= 1, "data", "no samples", "at least one");
  const Shard& shard = options.shard;
  require(shard.rank < shard.world_size, "rank", std::to_string(shard.rank),
          "0 to the number of processes less 1");
  require(samples >= shard.world_size, "world size", std::to_string(shard.world_size),
          "at most the number of samples");
  require(!options.drop_last || samples / shard.world_size >= options.batch_size, "batch size",
          std::to_string(options.batch_size),
          "at most the number of samples of a process, as incomplete batches are dropped");
  options.mix.check();
}

}  // namespace

// A ring of slots, each a batch in the making. Workers claim chunks of samples in the epoch's order as long
// as the batch is less than `prefetch` ahead of the consumer, so the slot of batch b is free when its first
// chunk is claimed. All members are guarded by mutex_, but the pixels of claimed samples, which belong to the
// worker, and what stays as it is while chunks are being read: the order and the epoch's number.
class Loader::Engine {
 public:
  Engine(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options)
      : options_(checked(options, dataset->size())),
        samples_(dataset->size()),
        reader_(std::move(dataset), options.pipeline, options.seed, options.bad_images),
        memory_(options.device != nullptr ? *options.device : backend(Device{})),
        slots_(options.workers == 0 ? 1 : options.prefetch),
        order_(order_of(0)),
        read_ahead_(reader_, reader_threads(), options.read_ahead),
        chunk_(chunk_size()) {
    require(!options.mix.is_on() || reader_.dataset().content() != Content::floats, "mix", "float32 images",
            "8-bit images");
    for (int i = 0; i < options.workers; ++i) {
      workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
    }
  }

  void start_epoch(std::uint64_t epoch, std::size_t first_sample) {
    require(first_sample <= order_.size(), "first sample of the epoch", std::to_string(first_sample),
            "at most the number of samples");
    std::unique_lock lock(mutex_);
    batches_ = 0;  // nothing more to claim
    finished_.wait(lock, [this] { return working_ == 0; });
    epoch_ = epoch;
    first_sample_ = first_sample;
    order_ = order_of(epoch);
    read_ahead_.start(order_, first_sample);
    claimed_batch_ = claimed_sample_ = delivered_ = 0;
    const std::size_t batches = batches_from(first_sample);
    for (std::size_t b = 0; b < std::min(batches, slots_.size()); ++b)
      reader_.prepare(slots_[b].batch, size_of(b), memory_);
    batches_ = batches;
    claimable_.notify_all();
  }

  bool next(Batch& batch) {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    if (delivered_ == batches_) return false;
    Slot& slot = slots_[delivered_ % slots_.size()];
    if (options_.workers == 0) {
      while (delivered_ == claimed_batch_) read(claim(), own_, lock);
    }
    finished_.wait(lock, [&] { return claimed_batch_ > delivered_ && slot.missing == 0; });
    wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    collect_bad(slot);
    if (slot.error) {
      batches_ = delivered_;  // the epoch is over
      std::rethrow_exception(std::exchange(slot.error, nullptr));
    }
    // The memory that comes back takes the batch that will have this slot. Nobody touches the slot now.
    const std::size_t upcoming = delivered_ + slots_.size();
    lock.unlock();
    if (upcoming < batches_) reader_.prepare(batch, size_of(upcoming), memory_);
    lock.lock();
    std::swap(batch, slot.batch);
    ++delivered_;
    claimable_.notify_all();
    return true;
  }

  std::size_t batches_per_epoch() const { return batches_from(0); }
  const EpochOrder& order() const { return order_; }
  const LoaderOptions& options() const { return options_; }
  double wait_seconds() const { return wait_seconds_; }
  std::size_t bad_count() const { return bad_.size(); }
  const std::vector<BadImage>& bad_images() const { return first_bad_; }

 private:
  struct PlacedBadImage {
    std::size_t place;
    BadImage image;
  };

  struct Slot {
    Batch batch;
    std::size_t missing = 0;   // samples not yet read
    std::exception_ptr error;  // of the earliest place that failed
    std::size_t error_place = 0;
    std::vector<PlacedBadImage> bad;
  };

  // What a thread works with.
  struct Own {
    explicit Own(const SampleReader& reader) : scratch(reader.make_scratch()) {}
    Fetched fetched;
    SampleReader::Scratch scratch;
    std::vector<BadImage> bad;
  };

  // Places first .. last-1 of a batch.
  struct Chunk {
    std::size_t batch;
    std::size_t first;
    std::size_t last;
  };

  static const LoaderOptions& checked(const LoaderOptions& options, std::size_t samples) {
    check(options, samples);
    return options;
  }

  // Samples in memory are there already.
  int reader_threads() const {
    const bool waits = reader_.dataset().content() == Content::files && options_.workers > 0;
    return waits ? options_.readers : 0;
  }

  // Small chunks share out a batch evenly, large ones take the mutex seldom. A file is much work, and what a
  // worker has claimed is missing in the ring.
  std::size_t chunk_size() const {
    const auto workers = static_cast<std::size_t>(std::max(1, options_.workers));
    return std::clamp<std::size_t>(options_.batch_size / (4 * workers), 1, reader_threads() > 0 ? 4 : 16);
  }

  EpochOrder order_of(std::uint64_t epoch) const {
    return {samples_, options_.shuffle, options_.seed, epoch, options_.shard};
  }

  // Batches of the epoch from a place on. What is dropped is what doesn't fill a batch of each process, so
  // that all have as many.
  std::size_t batches_from(std::size_t place) const {
    const std::size_t size = options_.batch_size;
    if (!options_.drop_last) return (order_.size() - place + size - 1) / size;
    const std::size_t of_all = samples_ / options_.shard.world_size;
    return of_all < place ? 0 : (of_all - place) / size;
  }

  bool can_claim() const { return claimed_batch_ < batches_ && claimed_batch_ < delivered_ + slots_.size(); }

  std::size_t start_of(std::size_t batch) const { return first_sample_ + batch * options_.batch_size; }
  std::size_t size_of(std::size_t batch) const {
    return std::min(options_.batch_size, order_.size() - start_of(batch));
  }

  // Of the batch that begins at a place of this process's epoch: another one in each process.
  std::uint64_t number_of(std::size_t start) const {
    return start / options_.batch_size * options_.shard.world_size + options_.shard.rank;
  }

  Chunk claim() {
    const std::size_t size = size_of(claimed_batch_);
    if (claimed_sample_ == 0) {
      Slot& slot = slots_[claimed_batch_ % slots_.size()];
      slot.missing = size;
      slot.error = nullptr;
      slot.bad.clear();
    }
    const Chunk chunk{claimed_batch_, claimed_sample_, std::min(size, claimed_sample_ + chunk_)};
    claimed_sample_ = chunk.last;
    if (claimed_sample_ == size) {
      ++claimed_batch_;
      claimed_sample_ = 0;
    }
    return chunk;
  }

  // Reads a chunk with the mutex released.
  void read(const Chunk& chunk, Own& own, std::unique_lock<std::mutex>& lock) {
    Slot& slot = slots_[chunk.batch % slots_.size()];
    const std::size_t start = start_of(chunk.batch);
    const std::size_t from_ring = read_ahead_.claim(start + chunk.first, start + chunk.last);
    ++working_;
    lock.unlock();
    std::exception_ptr error;
    std::size_t error_place = 0;
    std::vector<PlacedBadImage> bad;  // takes no memory as long as it is empty
    for (std::size_t place = chunk.first; place < chunk.last; ++place) {
      Fetched& fetched = fetch(start + place, from_ring, own);
      try {
        reader_.decode(epoch_, fetched, slot.batch, place, own.scratch, own.bad);
      } catch (...) {
        if (!error) {
          error = std::current_exception();
          error_place = place;
        }
      }
      fetched.error = nullptr;  // now it belongs to the batch, and then to the caller of next() alone
      for (BadImage& each : own.bad) bad.push_back({place, std::move(each)});
      own.bad.clear();
    }
    read_ahead_.give_back(start + chunk.first, from_ring);
    lock.lock();
    if (error && (!slot.error || error_place < slot.error_place)) {
      slot.error = std::move(error);
      slot.error_place = error_place;
    }
    std::move(bad.begin(), bad.end(), std::back_inserter(slot.bad));
    const std::size_t done = chunk.last - chunk.first;
    if (slot.missing == done && !slot.error) {  // all others have been read: the batch is this thread's alone
      lock.unlock();
      mix_batch(options_.mix, options_.seed, epoch_, number_of(start), slot.batch);
      lock.lock();
    }
    slot.missing -= done;
    --working_;
    if (slot.missing == 0 || working_ == 0) finished_.notify_one();
  }

  // The sample at a place of the epoch.
  Fetched& fetch(std::size_t place, std::size_t from_ring, Own& own) {
    if (place < from_ring) return read_ahead_.wait_for(place);
    reader_.fetch(order_(place), own.fetched);
    return own.fetched;
  }

  void work(const std::stop_token& stop) {
    Own own(reader_);
    std::unique_lock lock(mutex_);
    while (claimable_.wait(lock, stop, [this] { return can_claim(); }) && !stop.stop_requested()) {
      read(claim(), own, lock);
    }
  }

  void collect_bad(Slot& slot) {
    std::stable_sort(slot.bad.begin(), slot.bad.end(),
                     [](const PlacedBadImage& a, const PlacedBadImage& b) { return a.place < b.place; });
    for (PlacedBadImage& each : slot.bad) {
      if (bad_.insert(each.image.index).second && first_bad_.size() < max_listed_bad_images) {
        first_bad_.push_back(std::move(each.image));
      }
    }
    slot.bad.clear();
  }

  const LoaderOptions options_;
  const std::size_t samples_;
  const SampleReader reader_;
  Backend& memory_;  // whose host memory batches have

  std::mutex mutex_;
  std::condition_variable_any claimable_;  // for workers
  std::condition_variable_any finished_;   // for the consumer: a batch, or all chunks
  std::vector<Slot> slots_;
  EpochOrder order_;
  std::uint64_t epoch_ = 0;
  std::size_t first_sample_ = 0;
  std::size_t batches_ = 0;        // of this epoch, from first_sample_ on
  std::size_t claimed_batch_ = 0;  // the batch and the place in it that are claimed next
  std::size_t claimed_sample_ = 0;
  std::size_t delivered_ = 0;  // batches that next() has returned
  std::size_t working_ = 0;    // chunks being read
  ReadAhead read_ahead_;
  const std::size_t chunk_;

  // Touched by the consumer's thread only.
  Own own_{reader_};
  double wait_seconds_ = 0;
  std::set<std::size_t> bad_;
  std::vector<BadImage> first_bad_;

  std::vector<std::jthread> workers_;  // last: stopped and joined before anything that they use goes
};

Loader::Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options)
    : engine_(std::make_unique<Engine>(std::move(dataset), options)) {}
Loader::~Loader() = default;

void Loader::start_epoch(std::uint64_t epoch, std::size_t first_sample) {
  engine_->start_epoch(epoch, first_sample);
}
bool Loader::next(Batch& batch) {
  return engine_->next(batch);
}
std::optional<Batch> Loader::next() {
  Batch batch;
  return engine_->next(batch) ? std::optional(std::move(batch)) : std::nullopt;
}
std::size_t Loader::batches_per_epoch() const {
  return engine_->batches_per_epoch();
}
const EpochOrder& Loader::order() const {
  return engine_->order();
}
const LoaderOptions& Loader::options() const {
  return engine_->options();
}
double Loader::wait_seconds() const {
  return engine_->wait_seconds();
}
std::size_t Loader::bad_count() const {
  return engine_->bad_count();
}
const std::vector<BadImage>& Loader::bad_images() const {
  return engine_->bad_images();
}

}  // namespace qtrain::data
