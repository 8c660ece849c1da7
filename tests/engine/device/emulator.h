// Runs a kernel (see engine/kernels/device/thread.h) on the host, block after block, its threads as fibers
// that take turns: each runs until it waits for the others. Blocks and turns go round in either direction, so
// that a kernel whose result depends on the order of threads or blocks shows it.
//
// A test that defines QTRAIN_EMULATE_KERNELS before all includes can call the functions of qtrain::device
// with EmulatedGpu::stream().
#pragma once

#include <cstdint>
#include <functional>

#include "engine/kernels/device/thread.h"
#include "tests/engine/support.h"

namespace qtrain::testing_support {

// The fibers of one block.
class Fibers {
 public:
  enum class Order { forward, backward };

  // Runs body(thread) for 0..count-1; a body may call wait(), which returns when all have called it. Throws
  // std::logic_error if some threads end while others wait.
  static void run(std::int64_t count, Order order, const std::function<void(std::int64_t)>& body);
  static void wait();
};

struct EmulatedThread {
  std::int64_t block;
  std::int64_t blocks;
  std::int64_t thread;

  void sync() const { Fibers::wait(); }
  bool arrive_last(std::uint32_t* word) const {
    sync();
    if (thread == 0) ++*word;
    sync();
    const bool last = *word == static_cast<std::uint32_t>(blocks);
    sync();
    if (last && thread == 0) *word = 0;
    sync();
    return last;
  }
  template <class T>
  T read(const T* place) const {
    return *place;
  }
};

// Shared memory is filled with a pattern first: nothing may rely on zeros.
template <class Kernel>
void emulate(std::int64_t blocks, const Kernel& kernel, Fibers::Order order = Fibers::Order::forward) {
  using Shared = typename Kernel::Shared;
  alignas(Shared) unsigned char memory[sizeof(Shared)];
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t block = order == Fibers::Order::forward ? i : blocks - 1 - i;
    for (unsigned char& byte : memory) byte = 0xa5;
    Fibers::run(Kernel::threads, order, [&](std::int64_t thread) {
      kernel(EmulatedThread{block, blocks, thread}, *reinterpret_cast<Shared*>(memory));
    });
  }
}

// Kernels are emulated in this order while it lives. Its stream is the CPU's, with a word for arrivals.
class EmulatedGpu {
 public:
  explicit EmulatedGpu(Fibers::Order order) : before_(current) { current = order; }
  ~EmulatedGpu() { current = before_; }
  EmulatedGpu(const EmulatedGpu&) = delete;
  EmulatedGpu& operator=(const EmulatedGpu&) = delete;

  Stream stream() { return {.device = {}, .native = nullptr, .arrivals = &arrivals_}; }
  std::uint32_t arrivals() const { return arrivals_; }
  static inline thread_local Fibers::Order current = Fibers::Order::forward;

 private:
  Fibers::Order before_;
  std::uint32_t arrivals_ = 0;
};

// Calls compute(stream) in both orders. Kernels leave arrivals at 0.
template <class Compute>
void in_each_order(Compute&& compute) {
  for (const auto order : {Fibers::Order::forward, Fibers::Order::backward}) {
    EmulatedGpu gpu(order);
    compute(gpu.stream());
    EXPECT_EQ(gpu.arrivals(), 0U);
  }
}

// What compute(stream) returns in both orders: the same bits.
template <class Compute>
std::vector<float> in_any_order(Compute&& compute) {
  std::vector<std::vector<float>> results;
  in_each_order([&](const Stream& stream) { results.push_back(compute(stream)); });
  EXPECT_TRUE(identical(results[0], results[1]));
  return results[0];
}

}  // namespace qtrain::testing_support

#if defined(QTRAIN_EMULATE_KERNELS)
template <class Kernel>
void qtrain::device::launch(const Stream&, std::int64_t blocks, const Kernel& kernel) {
  testing_support::emulate(blocks, kernel, testing_support::EmulatedGpu::current);
}
#endif
