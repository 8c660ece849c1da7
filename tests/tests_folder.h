// Where the recorded data of the tests is.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace qtrain::testing_support {

// The folder tests/ of the sources. The environment variable QTRAIN_TESTS_FOLDER names it where the programs
// run on another machine than the one that built them.
inline std::filesystem::path tests_folder() {
  const char* const elsewhere = std::getenv("QTRAIN_TESTS_FOLDER");
  return elsewhere == nullptr ? QTRAIN_TESTS_FOLDER : elsewhere;
}

}  // namespace qtrain::testing_support
