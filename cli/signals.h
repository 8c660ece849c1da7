// SIGINT and SIGTERM ask the training loop to finish its step, save and leave; a second SIGINT leaves at
// once.
#pragma once

#include <csignal>

namespace qtrain::cli {

// While one lives (one at a time), SIGINT and SIGTERM only set a flag, and a second SIGINT ends the process
// with status 130. The handlers found before come back with its end.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  bool stop_requested() const { return signal() != 0; }
  int signal() const;       // the last signal, 0 = none
  int exit_status() const;  // 128 + signal, as shells report it; 0 = none

 private:
  struct sigaction old_interrupt_ {};
  struct sigaction old_terminate_ {};
};

}  // namespace qtrain::cli
