// The operations against Pillow's results, recorded by augment_reference.py: every byte is the same.
#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "data/augment/color.h"
#include "data/augment/rand_augment.h"
#include "data/augment/tone.h"
#include "engine/io/tensor_file.h"
#include "tests/tests_folder.h"

namespace qtrain::data {
namespace {

using Bytes = std::vector<std::uint8_t>;

void apply(const Pixels& image, std::istream& words) {
  std::string operation;
  words >> operation;
  if (operation == "operation") {
    int number = 0;
    int magnitude = 0;
    int sign = 0;
    words >> number >> magnitude >> sign;
    return apply_operation(image, static_cast<Operation>(number), magnitude, sign < 0);
  }
  if (operation == "autocontrast") return autocontrast(image);
  if (operation == "equalize") return equalize(image);
  double value = 0;
  words >> value;
  const std::map<std::string, void (*)(const Pixels&, double)> adjustments = {
      {"brightness", adjust_brightness},
      {"contrast", adjust_contrast},
      {"saturation", adjust_saturation},
      {"sharpness", adjust_sharpness},
      {"hue", adjust_hue}};
  adjustments.at(operation)(image, value);
}

TEST(AugmentReference, EveryByteIsPillows) {
  const TensorMap all = load_tensors(testing_support::tests_folder() / "data/augment_reference.safetensors");
  int compared = 0;
  for (const auto& [name, tensor] : all) {
    std::istringstream words(name);
    std::string image;
    words >> image;
    if (image == "image") continue;
    Bytes bytes = all.at("image " + image).values<std::uint8_t>();
    const Size size{static_cast<int>(tensor.dim(1)), static_cast<int>(tensor.dim(0))};
    apply({bytes, size}, words);
    const Bytes expected = tensor.values<std::uint8_t>();
    std::size_t different = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) different += bytes[i] != expected[i] ? 1 : 0;
    EXPECT_EQ(different, 0U) << name << ", of " << bytes.size();
    ++compared;
  }
  EXPECT_EQ(compared, 160);
}

}  // namespace
}  // namespace qtrain::data
