// How fast a data set is read, decoded, and both.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "data/loader/loader.h"

namespace qtrain::cli {

enum class LoadStep {
  disk,        // files are read, nothing is decoded
  decode_one,  // files in memory are decoded, cropped and resized by one thread
  decode,      // the same by as many threads as there are workers
  loader       // all of it, as in training
};

struct Measured {
  LoadStep step = LoadStep::disk;
  int threads = 0;
  std::size_t images = 0;
  double seconds = 0;
  double mean_bytes = 0;  // of an image as it lies in the data set

  double images_per_second() const { return seconds > 0 ? static_cast<double>(images) / seconds : 0; }
  double megabytes_per_second() const { return images_per_second() * mean_bytes / 1e6; }
};

struct DataBenchmark {
  Measured disk;
  Measured decode_one;
  Measured decode;
  Measured loader;
  double mean_bytes = 0;  // of an image of the data set
};

struct BenchmarkLimits {
  double seconds = 10;     // for all of it
  std::size_t images = 0;  // at most, of each measurement; 0: no limit
};

// Takes the measurements one after the other; `done` is called after each. Throws what loading throws, for an
// unreadable image if `options` says so.
DataBenchmark benchmark_data(const std::shared_ptr<const data::Dataset>& dataset,
                             const data::LoaderOptions& options, const BenchmarkLimits& limits,
                             const std::function<void(const Measured&)>& done);

// What limits loading, and what helps, in one sentence.
std::string limit_text(const DataBenchmark& result, const data::LoaderOptions& options, unsigned cores);

}  // namespace qtrain::cli
