#include "data/sets/demo_render.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "engine/core/rng.h"

namespace qtrain::data {
namespace {

constexpr float pi = std::numbers::pi_v<float>;
constexpr std::uint64_t demo_seed = 0x64656d6f;  // "demo"

using Colour = std::array<float, 3>;

class Random {
 public:
  explicit Random(RandomStream stream) : stream_(stream) {}
  float uniform(double low, double high) { return static_cast<float>(stream_.uniform(low, high)); }
  int whole(int low, int high) {  // both included
    const int count = high - low + 1;
    return low + static_cast<int>(stream_.below(static_cast<std::uint64_t>(count)));
  }
  float sign() { return stream_.bernoulli(0.5) ? 1.0F : -1.0F; }
  // The sum of four uniform bytes is nearly normal, and one draw instead of a logarithm, a root and a sine.
  float noise() {
    const std::uint32_t bits = stream_.next();
    const auto sum = static_cast<float>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24));
    return (sum - 510.0F) / 147.8F;
  }

 private:
  RandomStream stream_;
};

// Patterns of unit root mean square over (u, v), lengths in periods. `centre` patterns are drawn around the
// origin.
float lattice_distance(float u, float v) {
  const float du = u - std::round(u);
  const float dv = v - std::round(v);
  return du * du + dv * dv;
}
float wave(float t) {
  return std::sin(2 * pi * t);
}
// A thin line where t is whole; mean 0.
float line(float t) {
  const float d = t - std::round(t);
  return std::exp(-60 * d * d) - 0.2288F;
}

float stripes(float u, float) {
  return 1.41F * wave(u);
}
float checks(float u, float v) {
  return 2 * wave(u) * wave(v);
}
float dots(float u, float v) {
  return 3.1F * (std::exp(-14 * lattice_distance(u, v)) - 0.2244F);
}
float rings(float u, float v) {
  return 1.41F * wave(std::sqrt(u * u + v * v));
}
float rays(float u, float v) {
  return 1.41F * std::sin(9 * std::atan2(v, u));
}
float zigzag(float u, float v) {
  return 1.41F * wave(u + 0.3F * wave(v / 1.6F));
}
float honeycomb(float u, float v) {
  return 0.82F * (std::cos(2 * pi * u) + std::cos(2 * pi * (-u / 2 + 0.866F * v)) +
                  std::cos(2 * pi * (-u / 2 - 0.866F * v)));
}
float grid(float u, float v) {
  return 2.2F * (line(u) + line(v));
}
float bricks(float u, float v) {
  const float row = std::floor(v * 1.6F);
  return 2.2F * (line(v * 1.6F) + line(u + (std::fmod(std::abs(row), 2.0F) > 0.5F ? 0.5F : 0.0F)));
}
float ripples(float u, float v) {
  return 0.71F * (wave(u) + wave(0.8F * v + 0.3F * u) + wave(0.6F * u - 0.7F * v) + wave(-0.4F * u + v));
}

struct PatternKind {
  const char* name;
  float (*value)(float u, float v);
};
constexpr std::array<PatternKind, 10> patterns = {{{"stripes", stripes},
                                                   {"checks", checks},
                                                   {"dots", dots},
                                                   {"rings", rings},
                                                   {"rays", rays},
                                                   {"zigzag", zigzag},
                                                   {"honeycomb", honeycomb},
                                                   {"grid", grid},
                                                   {"bricks", bricks},
                                                   {"ripples", ripples}}};

// One pattern in a place: turned, scaled and shifted.
class Pattern {
 public:
  Pattern(int kind, float amplitude, float width, float height, const DemoDifficulty& d, Random& random)
      : value_(patterns[static_cast<std::size_t>(kind)].value), amplitude_(amplitude) {
    const float angle = random.uniform(0, 2 * std::numbers::pi);
    const float period = random.uniform(d.min_period, d.max_period);
    cosine_ = std::cos(angle) / period;
    sine_ = std::sin(angle) / period;
    x_ = width * random.uniform(0.25, 0.75);
    y_ = height * random.uniform(0.25, 0.75);
  }
  float operator()(float x, float y) const {
    const float dx = x - x_;
    const float dy = y - y_;
    return amplitude_ * value_(dx * cosine_ + dy * sine_, dy * cosine_ - dx * sine_);
  }

 private:
  float (*value_)(float, float);
  float amplitude_, cosine_, sine_, x_, y_;
};

struct Stroke {
  float nx, ny, distance, half_width, opacity;
  Colour colour;
};

Colour around(float brightness, double spread, Random& random) {
  Colour colour{};
  for (float& c : colour) c = brightness + random.uniform(-spread, spread);
  const float mean = 0.299F * colour[0] + 0.587F * colour[1] + 0.114F * colour[2];
  for (float& c : colour) c += brightness - mean;  // colours tell nothing about brightness
  return colour;
}

}  // namespace

const std::vector<std::string>& demo_class_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    all.reserve(patterns.size());
    for (const PatternKind& kind : patterns) all.emplace_back(kind.name);
    return all;
  }();
  return names;
}

Image render_demo_image(int label, Split split, std::uint64_t index, const DemoDifficulty& d) {
  Random random(RandomStream(demo_seed, RandomPurpose::generate, split == Split::train ? 0 : 1, index));
  Image image{random.whole(d.min_side, d.max_side), random.whole(d.min_side, d.max_side), {}};
  const auto width = static_cast<float>(image.width);
  const auto height = static_cast<float>(image.height);
  const float amplitude = random.uniform(d.min_amplitude, d.max_amplitude);
  const Pattern pattern(label, amplitude, width, height, d, random);
  const int other =
      (label + random.whole(1, static_cast<int>(patterns.size()) - 1)) % static_cast<int>(patterns.size());
  const Pattern distractor(other, amplitude * random.uniform(d.min_distractor, d.max_distractor), width,
                           height, d, random);
  const Colour base = around(random.uniform(95, 160), d.colour_spread, random);
  const float slope_x = random.uniform(-d.gradient, d.gradient) / width;
  const float slope_y = random.uniform(-d.gradient, d.gradient) / height;

  std::vector<Stroke> strokes(static_cast<std::size_t>(random.whole(d.min_strokes, d.max_strokes)));
  for (Stroke& s : strokes) {
    const float angle = random.uniform(0, 2 * std::numbers::pi);
    s.nx = std::cos(angle);
    s.ny = std::sin(angle);
    s.distance = s.nx * random.uniform(0.0, width) + s.ny * random.uniform(0.0, height);
    s.half_width = random.uniform(0.5, 1.2);
    s.opacity = random.uniform(0.3, 0.8);
    s.colour = around(random.uniform(40, 215), d.colour_spread, random);
  }

  image.rgb.reserve(std::size_t{3} * static_cast<std::size_t>(image.width) *
                    static_cast<std::size_t>(image.height));
  const auto noise = static_cast<float>(d.noise);
  for (int row = 0; row < image.height; ++row) {
    for (int column = 0; column < image.width; ++column) {
      const auto x = static_cast<float>(column);
      const auto y = static_cast<float>(row);
      const float shade =
          slope_x * (x - width / 2) + slope_y * (y - height / 2) + pattern(x, y) + distractor(x, y);
      Colour pixel{};
      for (std::size_t c = 0; c < 3; ++c) pixel[c] = base[c] + shade;
      for (const Stroke& s : strokes) {
        const float away =
            std::abs(s.nx * static_cast<float>(column) + s.ny * static_cast<float>(row) - s.distance);
        const float cover = s.opacity * std::clamp(s.half_width + 0.5F - away, 0.0F, 1.0F);
        for (std::size_t c = 0; c < 3; ++c) pixel[c] += cover * (s.colour[c] - pixel[c]);
      }
      for (const float c : pixel) {
        const float value = std::clamp(c + noise * random.noise(), 0.0F, 255.0F);
        image.rgb.push_back(static_cast<std::uint8_t>(std::lround(value)));
      }
    }
  }
  return image;
}

}  // namespace qtrain::data
