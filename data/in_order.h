// Work on many threads whose results are used in order.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

namespace qtrain::data {

// For each of 0..count-1: threads call make(index, scratch, result), and this one calls use(index, result),
// in order; it ends early when that returns false. At most `ahead` results wait at a time. They are used
// again, so make() finds the memory of earlier ones. What make() throws comes out of here when its turn
// comes: so neither results nor errors depend on the number of threads.
template <class Result, class Scratch, class Make, class Use>
void make_in_order(std::size_t count, int threads, std::size_t ahead, Make&& make, Use&& use) {
  struct Slot {
    Result result;
    std::exception_ptr error;
    bool ready = false;
  };
  std::vector<Slot> slots(ahead);
  std::mutex mutex;
  std::condition_variable_any changed;
  std::size_t claimed = 0;
  std::size_t used = 0;
  const auto work = [&](const std::stop_token& stop) {
    Scratch scratch;
    std::unique_lock lock(mutex);
    const auto can_claim = [&] { return claimed < count && claimed < used + ahead; };
    while (changed.wait(lock, stop, can_claim) && !stop.stop_requested()) {
      const std::size_t index = claimed++;
      Slot& slot = slots[index % ahead];
      lock.unlock();
      try {
        make(index, scratch, slot.result);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      slot.ready = true;
      changed.notify_all();
    }
  };
  std::vector<std::jthread> pool;  // last: stopped and joined before anything that it uses goes
  pool.reserve(static_cast<std::size_t>(threads));
  for (int i = 0; i < threads; ++i) pool.emplace_back(work);
  std::unique_lock lock(mutex);
  while (used < count) {
    Slot& slot = slots[used % ahead];
    changed.wait(lock, [&] { return slot.ready; });
    lock.unlock();
    if (slot.error) std::rethrow_exception(slot.error);
    if (!use(used, slot.result)) return;
    lock.lock();
    slot.ready = false;
    ++used;
    changed.notify_all();
  }
}

}  // namespace qtrain::data
