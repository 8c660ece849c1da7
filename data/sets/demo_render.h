// The pictures of the demo set: a pattern over the whole picture, with a weaker pattern of another class on
// top of it, colours and brightness that tell nothing, a few strokes, and noise. The ten classes are ten
// patterns of the same strength: which of two superposed patterns is the stronger one takes precise
// activations to see.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/image.h"

namespace qtrain::data {

// What makes the set hard. Lengths are in pixels; levels are of 255.
struct DemoDifficulty {
  int min_side = 72;  // width and height are drawn apart
  int max_side = 96;
  double min_amplitude = 24;  // root mean square of the pattern
  double max_amplitude = 42;
  double min_distractor = 0.3;  // amplitude of the weaker pattern, as a share of the stronger one's
  double max_distractor = 0.65;
  double min_period = 9;  // of the patterns
  double max_period = 18;
  double gradient = 40;       // largest change of brightness across the picture
  double colour_spread = 45;  // largest distance of a colour channel from the brightness
  int min_strokes = 1;        // thin lines across everything
  int max_strokes = 4;
  double noise = 12;  // standard deviation, each channel on its own
};

// Raise it with every change of the pictures, of DemoDifficulty or of the set's size: a new version is a new
// folder.
inline constexpr int demo_version = 3;

const std::vector<std::string>& demo_class_names();

// The picture is a pure function of its arguments.
Image render_demo_image(int label, Split split, std::uint64_t index, const DemoDifficulty& difficulty = {});

}  // namespace qtrain::data
