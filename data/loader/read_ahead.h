// Samples fetched ahead of the threads that decode them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "data/loader/epoch_order.h"
#include "data/loader/sample_reader.h"

namespace qtrain::data {

// A ring of samples that reader threads fill in the epoch's order. Whoever decodes claims places in the same
// order, and never waits for a reader to get to them: a place that no reader has begun is the claimer's to
// fetch. So where files come from memory, decoding goes on as if there were no readers; where they come
// slowly, as many are under way as there are readers and waiting decoders.
//
// The ring is full when all its entries are in use or its files take `most_bytes` (each reader may go beyond
// by one file). Readers then sleep until it is half empty, so that they don't wake for each sample.
class ReadAhead {
 public:
  struct Limits {
    std::size_t samples = 128;
    std::size_t bytes = std::size_t{64} << 20;
  };

  // No threads: every place is the claimer's to fetch.
  ReadAhead(const SampleReader& reader, int threads, const Limits& limits);

  // Begins at a place of `order`. No claim may be out.
  void start(const EpochOrder& order, std::size_t first);

  // Claims the places first .. last-1, of which `first` is where the last claim ended. Those before the
  // result come from the ring; the others are the caller's to fetch.
  std::size_t claim(std::size_t first, std::size_t last);
  // A claimed sample from the ring. Waits for the reader that is at it.
  Fetched& wait_for(std::size_t place);
  // The caller is done with these samples from the ring.
  void give_back(std::size_t first, std::size_t last);

 private:
  struct Entry {
    Fetched fetched;
    std::size_t bytes = 0;           // that count for the limit
    bool used = false;               // from when a reader begins until it is given back
    std::atomic<bool> ready{false};  // set under the mutex, read without it
  };

  Entry& entry(std::size_t place) { return entries_[place % entries_.size()]; }
  bool can_read() const;
  void read(const std::stop_token& stop);
  void release(Entry& entry);

  const SampleReader& reader_;
  const Limits limits_;

  std::mutex mutex_;
  std::condition_variable_any changed_;  // for readers and start()
  std::condition_variable arrived_;      // for decoders
  std::vector<Entry> entries_;
  EpochOrder order_{0, false, 0, 0, {}};
  std::size_t next_ = 0;  // the place that is read next; claims never go beyond
  std::size_t end_ = 0;
  std::size_t bytes_ = 0;  // of the files in the ring
  std::size_t used_ = 0;   // entries
  std::size_t reading_ = 0;
  bool filling_ = false;  // else it has been full and is not yet half empty

  std::vector<std::jthread> threads_;  // last: stopped and joined before anything that they use goes
};

}  // namespace qtrain::data
