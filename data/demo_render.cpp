#include "data/demo_render.h"

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

// A plane wave, or the product of two at right angles with the same root mean square.
struct Texture {
  bool checks;
  float amplitude, frequency, phase_u, phase_v, cosine, sine;

  Texture(bool is_checks, float amplitude_, float period, Random& random)
      : checks(is_checks), amplitude(amplitude_), frequency(2 * pi / period) {
    phase_u = random.uniform(0, 2 * std::numbers::pi);
    phase_v = random.uniform(0, 2 * std::numbers::pi);
    const float angle = random.uniform(0, std::numbers::pi);
    cosine = std::cos(angle);
    sine = std::sin(angle);
  }

  float operator()(float x, float y) const {
    const float wave = std::sin((x * cosine + y * sine) * frequency + phase_u);
    if (!checks) return amplitude * wave;
    return amplitude * std::numbers::sqrt2_v<float> * wave *
           std::sin((y * cosine - x * sine) * frequency + phase_v);
  }
};

// A regular polygon, or a disc for corners == 0, with the area of a disc of the given radius.
struct Outline {
  float radius, inner, sector, rotation;

  Outline(int corners, float disc_radius, float turn)
      : radius(disc_radius), inner(0), sector(0), rotation(turn) {
    if (corners == 0) return;
    sector = 2 * pi / static_cast<float>(corners);
    radius = disc_radius * std::sqrt(sector / std::sin(sector));  // area n/2 R^2 sin(2 pi/n) = pi r^2
    inner = radius * std::cos(sector / 2);
  }

  // The share of a pixel at (x, y) from the centre that is inside, from its distance to the nearest edge.
  float coverage(float x, float y) const {
    const float r = std::sqrt(x * x + y * y);
    float outside = r - radius;
    if (sector > 0 && outside < 1) {
      const float angle = std::atan2(y, x) - rotation;
      const float folded = angle - sector * std::floor(angle / sector) - sector / 2;
      outside = r * std::cos(folded) - inner;
    }
    return std::clamp(0.5F - outside, 0.0F, 1.0F);
  }
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
  static const std::vector<std::string> names = {
      "triangle_stripes", "square_stripes", "pentagon_stripes", "hexagon_stripes", "disc_stripes",
      "triangle_checks",  "square_checks",  "pentagon_checks",  "hexagon_checks",  "disc_checks"};
  return names;
}

Image render_demo_image(int label, Split split, std::uint64_t index, const DemoDifficulty& d) {
  constexpr std::array<int, 5> corners = {3, 4, 5, 6, 0};
  Random random(RandomStream(demo_seed, RandomPurpose::generate, split == Split::train ? 0 : 1, index));
  Image image{random.whole(d.min_side, d.max_side), random.whole(d.min_side, d.max_side), {}};
  const auto width = static_cast<float>(image.width);
  const auto height = static_cast<float>(image.height);
  const float shorter = std::min(width, height);
  const float center_x = width / 2 + shorter * random.uniform(-d.max_shift, d.max_shift);
  const float center_y = height / 2 + shorter * random.uniform(-d.max_shift, d.max_shift);
  const Outline outline(corners[static_cast<std::size_t>(label % 5)],
                        shorter * random.uniform(d.min_radius, d.max_radius),
                        random.uniform(0, 2 * std::numbers::pi));
  const Texture texture(label >= 5, random.uniform(d.min_texture, d.max_texture),
                        random.uniform(d.min_period, d.max_period), random);
  const bool other_checks = random.sign() > 0;
  const Texture behind(other_checks, random.uniform(0, d.background_texture),
                       random.uniform(d.min_period, 2 * d.max_period), random);
  const float contrast = random.sign() * random.uniform(d.min_contrast, d.max_contrast);
  const float brightness = random.uniform(80, 175);
  const Colour back = around(brightness - contrast / 2, d.colour_spread, random);
  const Colour front = around(brightness + contrast / 2, d.colour_spread, random);
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
      const float x = static_cast<float>(column) - center_x;
      const float y = static_cast<float>(row) - center_y;
      const float inside = outline.coverage(x, y);
      const float shade = slope_x * x + slope_y * y + (1 - inside) * behind(x, y) +
                          (inside > 0 ? inside * texture(x, y) : 0.0F);
      Colour pixel{};
      for (std::size_t c = 0; c < 3; ++c) pixel[c] = back[c] + inside * (front[c] - back[c]) + shade;
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
