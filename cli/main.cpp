#include <iostream>

#include "cli/dispatch.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  return qtrain::cli::dispatch(arguments, {}, std::cout, std::cerr);
}
