// Brings docs/quantizers/ up to date with the registry: quantizer_docs FOLDER. Part of ./dev docs.
#include <iostream>

#include "cli/quantizer_pages.h"
#include "engine/core/error.h"

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::cerr << "usage: quantizer_docs FOLDER\n";
    return 2;
  }
  const auto left = qtrain::cli::update_pages(argv[1], qtrain::cli::documented_quantizers());
  for (const std::string& line : left) std::cerr << line << "\n";
  return left.empty() ? 0 : 1;
} catch (const qtrain::Error& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 2;
}
