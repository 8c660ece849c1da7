// Golden families: what a reference implementation computed for one quantizer. NAME.json lists the cases, and
// NAME.safetensors beside it holds their tensors as `<case>.<tensor>`.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/io/tensor_file.h"

namespace qtrain::cli {

struct GoldenCase {
  std::string name;
  std::string role;                            // weight, activation, layer, ...
  std::optional<int> bits;                     // unset: the case has no bit-width
  std::map<std::string, std::string> options;  // as text: true, 4, modified; lists joined by commas
  bool training = true;
  TensorMap tensors;  // by their names within the case
};

struct GoldenFamily {
  std::string file;
  std::string quantizer;
  std::vector<GoldenCase> cases;
};

// IoError for files that can't be read; FormatError, naming file and case, for anything that is not as
// described: broken JSON, missing or mistyped fields, repeated case names, tensors that are listed but not
// there.
GoldenFamily load_golden_family(const std::string& json_path);

// The families that paths stand for: files as they are given, and the JSON files of folders by name.
// ValueError for a folder without any.
std::vector<std::string> golden_files(const std::vector<std::string>& paths);

}  // namespace qtrain::cli
