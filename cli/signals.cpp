#include "cli/signals.h"

#include <unistd.h>

#include <atomic>

namespace qtrain::cli {
namespace {

std::atomic<int> last_signal{0};
std::atomic<bool> interrupted{false};
static_assert(std::atomic<int>::is_always_lock_free, "signal handlers may only touch lock-free atomics");

extern "C" void on_signal(int number) {
  last_signal.store(number);
  if (number == SIGINT && interrupted.exchange(true)) ::_exit(130);
}

}  // namespace

SignalGuard::SignalGuard() {
  last_signal = 0;
  interrupted = false;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // a read of a file in progress goes on
  ::sigaction(SIGINT, &action, &old_interrupt_);
  ::sigaction(SIGTERM, &action, &old_terminate_);
}

SignalGuard::~SignalGuard() {
  ::sigaction(SIGINT, &old_interrupt_, nullptr);
  ::sigaction(SIGTERM, &old_terminate_, nullptr);
}

int SignalGuard::signal() const {
  return last_signal.load();
}

int SignalGuard::exit_status() const {
  return stop_requested() ? 128 + signal() : 0;
}

}  // namespace qtrain::cli
