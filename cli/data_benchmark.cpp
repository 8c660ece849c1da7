#include "cli/data_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/backend/backend.h"

namespace qtrain::cli {
namespace {

using Clock = std::chrono::steady_clock;

// What is decoded again and again.
constexpr std::size_t most_samples = 2000;
constexpr std::size_t most_sample_bytes = std::size_t{256} << 20;
// A rate near the slower step's says that this step limits.
constexpr double near = 0.8;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::size_t bytes_of(const data::Record& record, data::Content content) {
  switch (content) {
    case data::Content::files:
      return record.file.size();
    case data::Content::pixels:
      return record.image.rgb.size();
    case data::Content::floats:
      break;
  }
  return record.values.size() * sizeof(float);
}

// Hands out numbers from 0 until time or images are used up; the first one always.
class Counter {
 public:
  Counter(double seconds, std::size_t images) : seconds_(seconds), images_(images) {}
  bool next(std::size_t& number) {
    number = next_++;
    return number == 0 || ((images_ == 0 || number < images_) && elapsed() < seconds_);
  }
  double elapsed() const { return seconds_since(start_); }

 private:
  const double seconds_;
  const std::size_t images_;
  const Clock::time_point start_ = Clock::now();
  std::atomic<std::size_t> next_{0};
};

class Benchmark {
 public:
  Benchmark(const std::shared_ptr<const data::Dataset>& dataset, const data::LoaderOptions& options,
            const BenchmarkLimits& limits)
      : dataset_(dataset),
        options_(options),
        limits_(limits),
        reader_(dataset, options.pipeline, options.seed, options.bad_images) {}

  // By as many threads as may read at once in the loader.
  Measured disk() {
    const int threads = std::max(1, options_.workers + (options_.workers > 0 ? options_.readers : 0));
    const data::EpochOrder order = order_of(0);
    std::atomic<std::size_t> bytes{0};
    Measured result = measure(LoadStep::disk, threads, [&](Counter& counter) {
      data::Fetched fetched;
      std::size_t done = 0;
      for (std::size_t i = 0; counter.next(i); ++done) {
        reader_.fetch(order(i % order.size()), fetched);
        if (fetched.error && options_.bad_images == data::BadImages::fail)
          std::rethrow_exception(fetched.error);
        if (!fetched.error) bytes += bytes_of(fetched.record, dataset_->content());
      }
      return done;
    });
    mean_bytes_ = static_cast<double>(bytes) / static_cast<double>(result.images);
    result.mean_bytes = mean_bytes_;
    return result;
  }

  // Takes files into memory, for decoding.
  void gather() {
    if (dataset_->content() != data::Content::files) return;
    const data::EpochOrder order = order_of(0);
    const std::size_t most =
        std::min({order.size(), most_samples, limits_.images ? limits_.images : most_samples});
    const auto start = Clock::now();
    std::size_t bytes = 0;
    data::Fetched fetched;
    for (std::size_t i = 0; i < most && bytes < most_sample_bytes; ++i) {
      if (!samples_.empty() && seconds_since(start) > share() / 2) break;
      reader_.fetch(order(i), fetched);
      if (fetched.error) continue;
      const data::Record& record = fetched.record;
      samples_.push_back(
          {fetched.index, record.label, record.name, {record.file.begin(), record.file.end()}});
      bytes += record.file.size();
    }
  }

  Measured decode(LoadStep step, int threads) {
    return measure(step, threads, [&](Counter& counter) {
      data::SampleReader::Scratch scratch = reader_.make_scratch();
      data::Batch batch;
      reader_.prepare(batch, 1, backend(Device{}));
      data::Fetched fetched;
      std::vector<data::BadImage> bad;
      std::size_t done = 0;
      for (std::size_t i = 0; counter.next(i); ++done) {
        take(i, fetched);
        reader_.decode(i / dataset_->size(), fetched, batch, 0, scratch, bad);
        bad.clear();
      }
      return done;
    });
  }

  Measured loader() {
    data::Loader loader(dataset_, options_);
    Measured result{.step = LoadStep::loader, .threads = options_.workers, .mean_bytes = mean_bytes_};
    std::uint64_t epoch = 1;
    loader.start_epoch(epoch);
    data::Batch batch;
    const auto begin = Clock::now();
    auto start = begin;
    std::size_t all = 0;
    const auto enough = [&] {
      return all > 0 && ((limits_.images > 0 && all >= limits_.images) || seconds_since(begin) >= share());
    };
    while (!enough()) {
      if (!loader.next(batch)) {
        loader.start_epoch(++epoch);
        continue;
      }
      if (all == 0)
        start = Clock::now();  // the first batch takes the time of filling the pipeline
      else
        result.images += static_cast<std::size_t>(batch.count);
      all += static_cast<std::size_t>(batch.count);
    }
    result.seconds = seconds_since(result.images > 0 ? start : begin);
    if (result.images == 0) result.images = all;
    return result;
  }

 private:
  struct Sample {
    std::size_t index;
    std::int64_t label;
    std::string name;
    std::vector<std::byte> file;
  };

  double share() const { return limits_.seconds / 4.5; }  // four measurements, and gather()

  data::EpochOrder order_of(std::uint64_t epoch) const {
    return {dataset_->size(), options_.shuffle, options_.seed, epoch, {}};
  }

  // Of the samples in turn.
  void take(std::size_t number, data::Fetched& fetched) const {
    if (samples_.empty()) return reader_.fetch(number % dataset_->size(), fetched);
    const Sample& sample = samples_[number % samples_.size()];
    fetched.index = sample.index;
    fetched.error = nullptr;
    fetched.record.label = sample.label;
    fetched.record.name = sample.name;
    fetched.record.file = sample.file;
  }

  // Runs `work`, which returns how many images it has done, in each of some threads.
  template <class Work>
  Measured measure(LoadStep step, int threads, const Work& work) {
    Measured result{.step = step, .threads = threads, .mean_bytes = mean_bytes_};
    Counter counter(share(), limits_.images);
    std::mutex mutex;
    std::exception_ptr error;
    const auto run = [&] {
      std::size_t done = 0;
      std::exception_ptr own;
      try {
        done = work(counter);
      } catch (...) {
        own = std::current_exception();
      }
      const std::lock_guard lock(mutex);
      result.images += done;
      if (own && !error) error = own;
    };
    {
      std::vector<std::jthread> others;
      for (int i = 1; i < threads; ++i) others.emplace_back(run);
      run();
    }
    if (error) std::rethrow_exception(error);
    result.seconds = counter.elapsed();
    return result;
  }

  std::shared_ptr<const data::Dataset> dataset_;
  data::LoaderOptions options_;
  BenchmarkLimits limits_;
  data::SampleReader reader_;
  std::vector<Sample> samples_;
  double mean_bytes_ = 0;
};

}  // namespace

DataBenchmark benchmark_data(const std::shared_ptr<const data::Dataset>& dataset,
                             const data::LoaderOptions& options, const BenchmarkLimits& limits,
                             const std::function<void(const Measured&)>& done) {
  Benchmark benchmark(dataset, options, limits);
  DataBenchmark result;
  const auto keep = [&](Measured& place, const Measured& measured) {
    place = measured;
    if (done) done(place);
  };
  keep(result.disk, benchmark.disk());
  result.mean_bytes = result.disk.mean_bytes;
  benchmark.gather();
  keep(result.decode_one, benchmark.decode(LoadStep::decode_one, 1));
  result.decode = result.decode_one;
  result.decode.step = LoadStep::decode;
  if (options.workers > 1) keep(result.decode, benchmark.decode(LoadStep::decode, options.workers));
  keep(result.loader, benchmark.loader());
  return result;
}

std::string limit_text(const DataBenchmark& result, const data::LoaderOptions& options, unsigned cores) {
  const double disk = result.disk.images_per_second();
  const double decode = result.decode.images_per_second();
  const double loader = result.loader.images_per_second();
  if (options.workers == 0)
    return fmt::format("the training thread reads and decodes by itself, {:.0f} img/s: give it --workers",
                       loader);
  if (disk < decode)
    return fmt::format(
        "reading limits: the files come at {:.0f} img/s, {} could decode {:.0f}: a faster disk, smaller "
        "files "
        "or more --readers help",
        disk, options.workers == 1 ? "the worker" : fmt::format("{} workers", options.workers), decode);
  const std::string more =
      static_cast<unsigned>(options.workers) < cores
          ? fmt::format("more --workers help, up to the {} cores", cores)
          : fmt::format("all {} cores decode: smaller files or a smaller --image-size help", cores);
  if (loader < near * decode)
    return fmt::format(
        "reading and decoding share the {} cores: apart they reach {:.0f} and {:.0f} img/s; {}", cores, disk,
        decode, more);
  return fmt::format("decoding limits: the files come at {:.0f} img/s, {:.0f} are decoded; {}", disk, decode,
                     more);
}

}  // namespace qtrain::cli
