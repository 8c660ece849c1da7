#include "cli/signals.h"

#include <gtest/gtest.h>

namespace qtrain::cli {
namespace {

void do_nothing(int) {}

TEST(Signals, AskForAStop) {
  for (const int number : {SIGINT, SIGTERM}) {
    const SignalGuard guard;
    EXPECT_FALSE(guard.stop_requested());
    EXPECT_EQ(guard.exit_status(), 0);
    std::raise(number);
    EXPECT_TRUE(guard.stop_requested());
    EXPECT_EQ(guard.signal(), number);
    EXPECT_EQ(guard.exit_status(), 128 + number);
  }
}

TEST(Signals, TheFormerHandlersComeBack) {
  std::signal(SIGINT, do_nothing);
  {
    const SignalGuard guard;
    std::raise(SIGINT);
  }
  EXPECT_EQ(std::signal(SIGINT, SIG_DFL), do_nothing);
  const SignalGuard next;
  EXPECT_FALSE(next.stop_requested());  // what an earlier guard saw is forgotten
}

TEST(Signals, RepeatedTerminationWaitsForTheStep) {
  const SignalGuard guard;
  std::raise(SIGTERM);
  std::raise(SIGTERM);
  EXPECT_TRUE(guard.stop_requested());
}

TEST(SignalsDeathTest, ASecondInterruptLeavesAtOnce) {
  const auto interrupt_twice = [] {
    const SignalGuard guard;
    std::raise(SIGINT);
    std::raise(SIGINT);
  };
  EXPECT_EXIT(interrupt_twice(), testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace qtrain::cli
