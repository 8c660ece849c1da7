#include "data/loader/read_ahead.h"

#include <algorithm>

namespace qtrain::data {

ReadAhead::ReadAhead(const SampleReader& reader, int threads, const Limits& limits)
    : reader_(reader), limits_(limits), entries_(threads == 0 ? 0 : limits.samples) {
  for (int i = 0; i < threads; ++i)
    threads_.emplace_back([this](const std::stop_token& stop) { read(stop); });
}

void ReadAhead::start(const EpochOrder& order, std::size_t first) {
  std::unique_lock lock(mutex_);
  end_ = 0;  // nothing more to read
  changed_.wait(lock, [this] { return reading_ == 0; });
  for (Entry& each : entries_)
    if (each.used) release(each);
  order_ = order;
  next_ = first;
  end_ = order.size();
  filling_ = true;
  changed_.notify_all();
}

std::size_t ReadAhead::claim(std::size_t first, std::size_t last) {
  if (threads_.empty()) return first;
  const std::scoped_lock lock(mutex_);
  const std::size_t from_ring = std::clamp(next_, first, last);
  next_ = std::max(next_, last);
  return from_ring;
}

Fetched& ReadAhead::wait_for(std::size_t place) {
  Entry& it = entry(place);
  if (!it.ready.load(std::memory_order_acquire)) {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return it.ready.load(std::memory_order_relaxed); });
  }
  return it.fetched;
}

void ReadAhead::give_back(std::size_t first, std::size_t last) {
  if (first == last) return;
  const std::scoped_lock lock(mutex_);
  for (std::size_t place = first; place < last; ++place) release(entry(place));
  if (filling_ || used_ > entries_.size() / 2 || bytes_ > limits_.bytes / 2) return;
  filling_ = true;
  changed_.notify_all();
}

void ReadAhead::release(Entry& entry) {
  entry.used = false;
  entry.ready.store(false, std::memory_order_relaxed);
  bytes_ -= entry.bytes;
  entry.bytes = 0;
  --used_;
  // Buffers keep their memory, but not that of a rare large file: the ring as a whole would grow to as many.
  if (entry.fetched.record.buffer.capacity() > 2 * limits_.bytes / entries_.size())
    entry.fetched.record.buffer = {};
}

bool ReadAhead::can_read() const {
  return filling_ && next_ < end_;
}

void ReadAhead::read(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return can_read(); }) && !stop.stop_requested()) {
    Entry& it = entry(next_);
    if (it.used || bytes_ >= limits_.bytes) {  // full
      filling_ = false;
      continue;
    }
    it.used = true;
    ++used_;
    ++reading_;
    const std::size_t index = order_(next_++);
    lock.unlock();
    reader_.fetch(index, it.fetched);
    lock.lock();
    it.bytes = it.fetched.record.buffer.size();
    bytes_ += it.bytes;
    it.ready.store(true, std::memory_order_release);
    arrived_.notify_all();
    if (--reading_ == 0 && end_ == 0) changed_.notify_all();  // start() waits for it
  }
}

}  // namespace qtrain::data
