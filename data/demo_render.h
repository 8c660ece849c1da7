// The pictures of the demo set: a textured shape on a cluttered, noisy background. The ten classes are five
// outlines (triangle, square, pentagon, hexagon, disc) times two textures (stripes, checks) of the same area,
// contrast and colours: what tells them apart is the number of corners and a faint pattern, so that a network
// needs precise activations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/image.h"

namespace qtrain::data {

// What makes the set hard. Lengths are in pixels unless they are shares of the shorter side; levels are of
// 255.
struct DemoDifficulty {
  int min_side = 72;  // width and height are drawn apart
  int max_side = 96;
  double min_radius = 0.22;  // of the disc of equal area, as a share of the shorter side
  double max_radius = 0.30;
  double max_shift = 0.06;   // of the centre, as a share of the shorter side
  double min_contrast = 18;  // of the shape against the background, in brightness
  double max_contrast = 55;
  double min_texture = 12;  // amplitude of the texture in the shape
  double max_texture = 26;
  double min_period = 6.5;  // of the texture
  double max_period = 10;
  double background_texture = 7;  // largest amplitude of a grating behind the shape
  double gradient = 40;           // largest change of the background's brightness across the picture
  double colour_spread = 45;      // largest distance of a colour channel from the brightness
  int min_strokes = 3;            // thin lines across everything
  int max_strokes = 7;
  double noise = 9;  // standard deviation, each channel on its own
};

// Raise it with every change of the pictures, of DemoDifficulty or of the set's size: a new version is a new
// folder.
inline constexpr int demo_version = 1;

const std::vector<std::string>& demo_class_names();

// The picture is a pure function of its arguments.
Image render_demo_image(int label, Split split, std::uint64_t index, const DemoDifficulty& difficulty = {});

}  // namespace qtrain::data
