#include "data/sets/imagenet.h"

#include <fmt/format.h>

#include <algorithm>

namespace qtrain::data {
namespace {

constexpr std::size_t classes = 1000;
constexpr std::size_t training_images = 1'281'167;
constexpr std::size_t validation_images = 50'000;

bool is_wordnet_id(const std::string& name) {
  return name.size() == 9 && name[0] == 'n' &&
         std::all_of(name.begin() + 1, name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string grouped(std::size_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

}  // namespace

std::string imagenet_difference(const Dataset& dataset, Split split) {
  const std::vector<std::string>& names = dataset.class_names();
  if (names.size() != classes || !std::all_of(names.begin(), names.end(), is_wordnet_id)) return "";
  const bool train = split == Split::train;
  const std::size_t known = train ? training_images : validation_images;
  const std::size_t there = dataset.size();
  if (there == known) return "";
  const bool fewer = there < known;
  return fmt::format("{} images: {}, {} {} than ImageNet's {}", train ? "training" : "validation",
                     grouped(there), grouped(fewer ? known - there : there - known), fewer ? "fewer" : "more",
                     grouped(known));
}

}  // namespace qtrain::data
