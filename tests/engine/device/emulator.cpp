#include "tests/engine/device/emulator.h"

#include <ucontext.h>

#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace qtrain::testing_support {
namespace {

constexpr std::size_t stack_bytes = std::size_t{128} << 10;

struct Fiber {
  ucontext_t context{};
  std::vector<unsigned char> stack = std::vector<unsigned char>(stack_bytes);
  void* fake_stack = nullptr;
  bool done = false;
};

struct Scheduler {
  ucontext_t main{};
  void* main_fake_stack = nullptr;
  const void* main_stack = nullptr;
  std::size_t main_stack_bytes = 0;
  std::vector<Fiber> fibers;
  std::int64_t current = 0;
  const std::function<void(std::int64_t)>* body = nullptr;
};

thread_local Scheduler* scheduler = nullptr;

// AddressSanitizer wants to know whose stack runs.
void before_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, stack, bytes);
#endif
}
void after_switch([[maybe_unused]] void* fake, [[maybe_unused]] const void** from,
                  [[maybe_unused]] std::size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, from, bytes);
#endif
}

void back_to_main(Fiber& fiber, bool forever) {
  before_switch(forever ? nullptr : &fiber.fake_stack, scheduler->main_stack, scheduler->main_stack_bytes);
  swapcontext(&fiber.context, &scheduler->main);
  after_switch(fiber.fake_stack, nullptr, nullptr);
}

void enter() {
  after_switch(nullptr, &scheduler->main_stack, &scheduler->main_stack_bytes);
  Fiber& fiber = scheduler->fibers[static_cast<std::size_t>(scheduler->current)];
  (*scheduler->body)(scheduler->current);
  fiber.done = true;
  back_to_main(fiber, true);
}

void resume(std::int64_t thread) {
  Fiber& fiber = scheduler->fibers[static_cast<std::size_t>(thread)];
  scheduler->current = thread;
  before_switch(&scheduler->main_fake_stack, fiber.stack.data(), fiber.stack.size());
  swapcontext(&scheduler->main, &fiber.context);
  after_switch(scheduler->main_fake_stack, nullptr, nullptr);
}

}  // namespace

void Fibers::run(std::int64_t count, Order order, const std::function<void(std::int64_t)>& body) {
  thread_local Scheduler reused;  // its stacks
  reused.fibers.resize(static_cast<std::size_t>(count));
  reused.body = &body;
  scheduler = &reused;
  for (Fiber& fiber : reused.fibers) {
    fiber.done = false;
    fiber.fake_stack = nullptr;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (std::int64_t left = count; left > 0;) {
    std::int64_t ended = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t thread = order == Order::forward ? i : count - 1 - i;
      Fiber& fiber = reused.fibers[static_cast<std::size_t>(thread)];
      if (fiber.done) continue;
      resume(thread);
      if (fiber.done) ++ended;
    }
    if (ended != 0 && ended != left)
      throw std::logic_error("some threads of a block ended while others wait for them");
    left -= ended;
  }
}

void Fibers::wait() {
  back_to_main(scheduler->fibers[static_cast<std::size_t>(scheduler->current)], false);
}

}  // namespace qtrain::testing_support
