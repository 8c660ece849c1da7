#include "bench/photographs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "engine/core/rng.h"

namespace qtrain::bench {
namespace {

using data::Size;

using Colour = std::array<double, 3>;

// Random numbers on a grid, and smooth in between.
class Lattice {
 public:
  Lattice(Size size, double spacing, RandomStream& random)
      : spacing_(spacing), columns_(static_cast<int>(size.width / spacing) + 2) {
    const int rows = static_cast<int>(size.height / spacing) + 2;
    values_.resize(static_cast<std::size_t>(columns_) * static_cast<std::size_t>(rows));
    for (float& value : values_) value = static_cast<float>(random.uniform(-1, 1));
  }

  double operator()(int x, int y) const {
    const double u = x / spacing_;
    const double v = y / spacing_;
    const int column = static_cast<int>(u);
    const int row = static_cast<int>(v);
    const double s = smooth(u - column);
    const double t = smooth(v - row);
    return std::lerp(std::lerp(at(column, row), at(column + 1, row), s),
                     std::lerp(at(column, row + 1), at(column + 1, row + 1), s), t);
  }

 private:
  static double smooth(double t) { return t * t * (3 - 2 * t); }
  double at(int column, int row) const {
    return static_cast<double>(values_[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns_) +
                                       static_cast<std::size_t>(column)]);
  }

  double spacing_;
  int columns_;
  std::vector<float> values_;
};

// A sum of lattices, each with half the spacing of the one before and half its amplitude.
class Texture {
 public:
  Texture(Size size, double coarsest, double finest, RandomStream& random) {
    for (double spacing = coarsest; spacing >= finest; spacing /= 2)
      octaves_.emplace_back(size, spacing, random);
  }
  double operator()(int x, int y) const {
    double sum = 0;
    double amplitude = 0.5;
    for (const Lattice& octave : octaves_) {
      sum += amplitude * octave(x, y);
      amplitude /= 2;
    }
    return sum;
  }

 private:
  std::vector<Lattice> octaves_;
};

// An ellipse or a rectangle, turned.
struct Shape {
  double x, y, width, height, cosine, sine;
  bool round;
  Colour colour;
  double texture;

  Shape(Size size, RandomStream& random)
      : x(random.uniform(0, size.width)),
        y(random.uniform(0, size.height)),
        width(random.uniform(0.03, 0.35) * size.width),
        height(random.uniform(0.03, 0.35) * size.height),
        round(random.bernoulli(0.5)),
        texture(random.uniform(0, 1.5)) {
    const double angle = random.uniform(0, std::numbers::pi);
    cosine = std::cos(angle);
    sine = std::sin(angle);
    for (double& each : colour) each = random.uniform(20, 235);
  }
  bool covers(double at_x, double at_y) const {
    const double u = (cosine * (at_x - x) + sine * (at_y - y)) / width;
    const double v = (cosine * (at_y - y) - sine * (at_x - x)) / height;
    return round ? u * u + v * v < 1 : std::abs(u) < 1 && std::abs(v) < 1;
  }
};

}  // namespace

data::Image photograph(Size size, double detail, std::uint64_t index) {
  RandomStream random(2024, RandomPurpose::generate, 0, index);
  const double longer = std::max(size.width, size.height);
  const Texture light(size, longer / 2, 2, random);
  const Texture warmth(size, longer / 3, 8, random);  // colours change less finely than brightness
  std::vector<Shape> shapes;
  const int count = 4 + static_cast<int>(random.below(12));
  shapes.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) shapes.emplace_back(size, random);
  const double slope_x = random.uniform(-60, 60) / size.width;
  const double slope_y = random.uniform(-60, 60) / size.height;
  const double contrast = random.uniform(40, 110);
  const double noise = detail * random.uniform(9, 36);
  Colour ground{};
  for (double& each : ground) each = random.uniform(70, 170);

  data::Image image{size.width, size.height, {}};
  image.rgb.reserve(static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height) * 3);
  for (int y = 0; y < size.height; ++y) {
    for (int x = 0; x < size.width; ++x) {
      Colour colour = ground;
      double texture = 1;
      for (const Shape& shape : shapes) {
        if (!shape.covers(x, y)) continue;
        colour = shape.colour;
        texture = shape.texture;
      }
      const double brightness = slope_x * x + slope_y * y + texture * contrast * light(x, y) +
                                noise * (random.uniform(-1, 1) + random.uniform(-1, 1));
      const double tint = 0.4 * texture * contrast * warmth(x, y);
      const Colour tints = {tint, 0, -tint};
      for (std::size_t c = 0; c < 3; ++c) {
        image.rgb.push_back(static_cast<std::uint8_t>(
            std::clamp(colour[c] + brightness + tints[c] + 0.5 * noise * random.uniform(-1, 1), 0.0, 255.0)));
      }
    }
  }
  return image;
}

}  // namespace qtrain::bench
