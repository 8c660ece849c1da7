// Command lines of the measuring programs: words in order, and flags anywhere between them.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/backend/backend.h"

namespace qtrain::bench {

class Arguments {
 public:
  Arguments(int argc, char** argv) : words_(argv + 1, argv + argc) {}

  // The value behind --NAME. Flags are taken out, so ask for all of them before the words.
  std::string option(const std::string& name, const std::string& otherwise) {
    const auto flag = std::ranges::find(words_, "--" + name);
    if (flag == words_.end()) return otherwise;
    if (flag + 1 == words_.end()) throw std::invalid_argument("--" + name + " needs a value");
    std::string value = *(flag + 1);
    words_.erase(flag, flag + 2);
    return value;
  }

  // True for --NAME, false for --no-NAME.
  bool choice(const std::string& name, bool otherwise) {
    if (std::erase(words_, "--" + name) > 0) return true;
    return std::erase(words_, "--no-" + name) > 0 ? false : otherwise;
  }

  // --device cpu (the default) or cuda, the first GPU. DeviceError where there is none.
  Device device() {
    const std::string name = option("device", "cpu");
    if (name != "cpu" && name != "cuda")
      throw std::invalid_argument("--device is '" + name + "', not cpu or cuda");
    const Device result{name == "cpu" ? DeviceType::cpu : DeviceType::cuda, 0};
    backend(result);
    return result;
  }

  // --precision fp32 (the default), or another one of `known`.
  std::string precision(const std::vector<std::string>& known) {
    std::string name = option("precision", "fp32");
    if (std::ranges::find(known, name) == known.end())
      throw std::invalid_argument("--precision '" + name + "' is unknown");
    return name;
  }

  // What is left once all flags are taken; refuses fewer words than `least`, and flags that nobody knows.
  void expect_words(std::size_t least, const std::string& usage) const {
    const auto flag = std::ranges::find_if(words_, [](const auto& word) { return word.starts_with("--"); });
    if (flag != words_.end()) throw std::invalid_argument("unknown flag " + *flag + "; usage: " + usage);
    if (words_.size() < least) throw std::invalid_argument("usage: " + usage);
  }
  std::size_t count() const { return words_.size(); }
  std::string word(std::size_t i) const { return words_.at(i); }
  // A whole number of at least 1.
  std::int64_t number(std::size_t i, std::int64_t otherwise) const {
    return i < words_.size() ? parse(words_[i]) : otherwise;
  }
  static std::int64_t parse(const std::string& text) {
    std::size_t used = 0;
    std::int64_t value = 0;
    try {
      value = std::stoll(text, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used == 0 || used != text.size() || value < 1)
      throw std::invalid_argument("'" + text + "' is not a whole number of at least 1");
    return value;
  }

 private:
  std::vector<std::string> words_;
};

}  // namespace qtrain::bench
