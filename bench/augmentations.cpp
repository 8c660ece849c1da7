// Nanoseconds an image for each augmentation, on one thread and on an image as the network gets it, in time
// of the processor, so that what else runs on the machine counts little:
//   augmentations [IMAGE_SIZE]      224
// Prints one JSON line an operation: the median of repeated passes over a set of images that fits no cache
// close to the core, as in a loader.
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "data/augment/geometric.h"
#include "data/augment/mix.h"
#include "data/augment/pixel_augmentation.h"
#include "data/augment/tone.h"

namespace {

using namespace qtrain::data;  // NOLINT(google-build-using-namespace)

constexpr std::size_t images = 64;
constexpr int passes = 15;

double thread_nanoseconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

class Measurement {
 public:
  explicit Measurement(int side) : size_{side, side}, bytes_(images * 3 * area(side)) {
    qtrain::RandomStream random(1, qtrain::RandomPurpose::user);
    for (std::uint8_t& value : bytes_) value = static_cast<std::uint8_t>(random.next());
  }

  void each(const std::string& name, const std::function<void(const Pixels&, std::uint64_t)>& change) {
    const std::size_t image_bytes = bytes_.size() / images;
    report(name, [&](std::uint64_t pass) {
      for (std::size_t i = 0; i < images; ++i)
        change({std::span(bytes_).subspan(i * image_bytes, image_bytes), size_}, pass * images + i);
    });
  }
  void batch(const std::string& name, const Mixing& mixing) {
    report(name, [&](std::uint64_t) { mix_images(mixing, bytes_, images, size_); });
  }
  Size size() const { return size_; }

 private:
  static std::size_t area(int side) {
    return static_cast<std::size_t>(side) * static_cast<std::size_t>(side);
  }

  void report(const std::string& name, const std::function<void(std::uint64_t)>& pass) {
    const std::vector<std::uint8_t> before = bytes_;
    std::vector<double> times;
    for (std::uint64_t i = 0; i < passes; ++i) {
      bytes_ = before;
      const double start = thread_nanoseconds();
      pass(i);
      times.push_back((thread_nanoseconds() - start) / images);
    }
    const auto time = qtrain::bench::spread_of(times);
    std::printf(
        "{\"operation\": \"%s\", \"size\": %d, \"ns_per_image\": %.0f, \"min\": %.0f, \"max\": %.0f}\n",
        name.c_str(), size_.width, time.median, time.min, time.max);
    std::fflush(stdout);
  }

  Size size_;
  std::vector<std::uint8_t> bytes_;
};

void measure_all(int side) {
  Measurement m(side);
  m.each("brightness", [](const Pixels& p, std::uint64_t) { adjust_brightness(p, 1.3); });
  m.each("contrast", [](const Pixels& p, std::uint64_t) { adjust_contrast(p, 0.7); });
  m.each("saturation", [](const Pixels& p, std::uint64_t) { adjust_saturation(p, 1.3); });
  m.each("hue", [](const Pixels& p, std::uint64_t) { adjust_hue(p, 0.1); });
  m.each("sharpness", [](const Pixels& p, std::uint64_t) { adjust_sharpness(p, 1.3); });
  m.each("posterize", [](const Pixels& p, std::uint64_t) { posterize(p, 5); });
  m.each("solarize", [](const Pixels& p, std::uint64_t) { solarize(p, 178); });
  m.each("autocontrast", [](const Pixels& p, std::uint64_t) { autocontrast(p); });
  m.each("equalize", [](const Pixels& p, std::uint64_t) { equalize(p); });
  m.each("shear", [](const Pixels& p, std::uint64_t) { move(p, shear_x(0.1)); });
  m.each("translate", [](const Pixels& p, std::uint64_t) { move(p, translate(30, 0)); });
  m.each("rotate", [](const Pixels& p, std::uint64_t) { move(p, rotate(9, p.size)); });
  m.each("vertical flip", [](const Pixels& p, std::uint64_t) { flip_rows(p); });

  const auto augmentation = [&](const std::string& name, const PixelOptions& options) {
    const PixelAugmentation pixels(options);
    m.each(name, [&](const Pixels& p, std::uint64_t index) {
      qtrain::RandomStream random(1, qtrain::RandomPurpose::augment, 0, index);
      pixels.apply(p, random);
    });
  };
  const ColorJitter jitter{.brightness = 0.4, .contrast = 0.4, .saturation = 0.4};
  augmentation("color-jitter 0.4,0.4,0.4,0", {.color_jitter = jitter});
  augmentation("lighting 0.1", {.lighting = 0.1});
  augmentation("rand-augment 2,9", {.rand_augment = {.operations = 2}});
  const ErasingOptions erasing{.probability = 1, .mean = {124, 116, 104}, .deviation = {58, 57, 57}};
  augmentation("random-erasing 1 mean", {.erasing = erasing});
  ErasingOptions noise = erasing;
  noise.mode = ErasingMode::noise;
  augmentation("random-erasing 1 pixel", {.erasing = noise});

  m.batch("mixup", {.lambda = 0.3});
  m.batch("cutmix", {.lambda = 0.75, .cuts = true, .box = {side / 4, side / 4, side / 2, side / 2}});
}

}  // namespace

int main(int argc, char** argv) try {
  measure_all(argc > 1 ? std::atoi(argv[1]) : 224);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "augmentations: %s\n", error.what());
  return 2;
}
