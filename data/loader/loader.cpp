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

constexpr std::size_t max_listed_bad_images = 10;

void require(bool ok, const char* option, const std::string& got, const char* expected) {
  if (!ok)
    throw ValueError({.where = option, .what = "option out of range", .got = got, .expected = expected});
}

void check(const LoaderOptions& options, std::size_t samples) {
  require(options.batch_size >= 1 && options.batch_size <= 65536, "batch size",
          std::to_string(options.batch_size), "1 to 65536");
  require(options.workers >= 0 && options.workers <= 256, "workers", std::to_string(options.workers),
          "0 to 256");
  require(options.prefetch >= 1 && options.prefetch <= 1024, "prefetch", std::to_string(options.prefetch),
          "1 to 1024 batches");
  require(samples >= 1, "data", "no samples", "at least one");
  require(!options.drop_last || samples >= options.batch_size, "batch size",
          std::to_string(options.batch_size),
          "at most the number of samples, as incomplete batches are dropped");
  options.mix.check();
}

}  // namespace

// A ring of slots, each a batch in the making. Workers claim chunks of samples in the epoch's order as long
// as the batch is less than `prefetch` ahead of the consumer, so the slot of batch b is free when its first
// chunk is claimed. All members are guarded by mutex_, but the pixels of claimed samples, which belong to the
// worker.
class Loader::Engine {
 public:
  Engine(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options)
      : options_(options),
        samples_(dataset->size()),
        reader_(std::move(dataset), options.pipeline, options.seed, options.bad_images),
        slots_(options.workers == 0 ? 1 : options.prefetch),
        order_(samples_, options.seed, 0) {
    check(options, samples_);
    require(!options.mix.is_on() || reader_.dataset().content() != Content::floats, "mix", "float32 images",
            "8-bit images");
    const std::size_t share =
        options.batch_size / (4 * static_cast<std::size_t>(std::max(1, options.workers)));
    chunk_ = std::clamp<std::size_t>(share, 1, 16);
    for (int i = 0; i < options.workers; ++i) {
      workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
    }
  }

  void start_epoch(std::uint64_t epoch, std::size_t first_sample) {
    require(first_sample <= samples_, "first sample of the epoch", std::to_string(first_sample),
            "at most the number of samples");
    std::unique_lock lock(mutex_);
    batches_ = 0;  // nothing more to claim
    changed_.wait(lock, [this] { return working_ == 0; });
    epoch_ = epoch;
    first_sample_ = first_sample;
    order_ = RandomPermutation(samples_, options_.seed, epoch);
    claimed_batch_ = claimed_sample_ = delivered_ = 0;
    batches_ = count_batches(samples_ - first_sample);
    changed_.notify_all();
  }

  bool next(Batch& batch) {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    if (delivered_ == batches_) return false;
    Slot& slot = slots_[delivered_ % slots_.size()];
    if (options_.workers == 0) {
      while (delivered_ == claimed_batch_) read(claim(), own_, lock);
    }
    changed_.wait(lock, [&] { return claimed_batch_ > delivered_ && slot.missing == 0; });
    wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    collect_bad(slot);
    if (slot.error) {
      batches_ = delivered_;  // the epoch is over
      std::rethrow_exception(std::exchange(slot.error, nullptr));
    }
    std::swap(batch, slot.batch);
    ++delivered_;
    changed_.notify_all();
    return true;
  }

  std::size_t count_batches(std::size_t samples) const {
    return (samples + (options_.drop_last ? 0 : options_.batch_size - 1)) / options_.batch_size;
  }
  std::size_t batches_per_epoch() const { return count_batches(samples_); }
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
  };

  // Places first .. last-1 of a batch.
  struct Chunk {
    std::size_t batch;
    std::size_t first;
    std::size_t last;
  };

  bool can_claim() const { return claimed_batch_ < batches_ && claimed_batch_ < delivered_ + slots_.size(); }

  std::size_t size_of(std::size_t batch) const {
    return std::min(options_.batch_size, samples_ - first_sample_ - batch * options_.batch_size);
  }

  Chunk claim() {
    const std::size_t size = size_of(claimed_batch_);
    if (claimed_sample_ == 0) {
      Slot& slot = slots_[claimed_batch_ % slots_.size()];
      reader_.prepare(slot.batch, size);
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
    const RandomPermutation order = order_;
    const std::uint64_t epoch = epoch_;
    const std::size_t start = first_sample_ + chunk.batch * options_.batch_size;
    ++working_;
    lock.unlock();
    std::exception_ptr error;
    std::size_t error_place = 0;
    std::vector<PlacedBadImage> bad;
    std::vector<BadImage> bad_here;
    for (std::size_t place = chunk.first; place < chunk.last; ++place) {
      try {
        const std::size_t position = start + place;
        const std::size_t index = options_.shuffle ? order(position) : position;
        reader_.fetch(index, own.fetched);
        reader_.decode(epoch, own.fetched, slot.batch, place, own.scratch, bad_here);
      } catch (...) {
        if (!error) {
          error = std::current_exception();
          error_place = place;
        }
      }
      for (BadImage& each : bad_here) bad.push_back({place, std::move(each)});
      bad_here.clear();
    }
    lock.lock();
    if (error && (!slot.error || error_place < slot.error_place)) {
      slot.error = std::move(error);
      slot.error_place = error_place;
    }
    std::move(bad.begin(), bad.end(), std::back_inserter(slot.bad));
    const std::size_t done = chunk.last - chunk.first;
    if (slot.missing == done && !slot.error) {  // all others have been read: the batch is this thread's alone
      lock.unlock();
      mix_batch(options_.mix, options_.seed, epoch, start / options_.batch_size, slot.batch);
      lock.lock();
    }
    slot.missing -= done;
    --working_;
    if (slot.missing == 0 || working_ == 0) changed_.notify_all();
  }

  void work(const std::stop_token& stop) {
    Own own(reader_);
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return can_claim(); }) && !stop.stop_requested()) {
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
  std::size_t chunk_ = 1;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Slot> slots_;
  RandomPermutation order_;
  std::uint64_t epoch_ = 0;
  std::size_t first_sample_ = 0;
  std::size_t batches_ = 0;        // of this epoch, from first_sample_ on
  std::size_t claimed_batch_ = 0;  // the batch and the place in it that are claimed next
  std::size_t claimed_sample_ = 0;
  std::size_t delivered_ = 0;  // batches that next() has returned
  std::size_t working_ = 0;    // chunks being read

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
