// What the measuring programs share: time, order statistics, threads.
#pragma once

#include <immintrin.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace qtrain::bench {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

template <class F>
double seconds_of(F&& work) {
  const Stopwatch watch;
  work();
  return watch.seconds();
}

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};

inline Spread spread_of(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::ranges::sort(samples);
  const std::size_t middle = samples.size() / 2;
  const double median =
      samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
  return {median, samples.front(), samples.back()};
}

// Largest resident memory of this process so far, in megabytes of 2^20 bytes.
inline double peak_rss_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// Denormal numbers are zero, for this thread and for OpenMP's: as in the engine.
inline void flush_denormals() {
#pragma omp parallel
  {
    _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
    _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_ON);
  }
}

}  // namespace qtrain::bench
