// The kernels of the elementwise machinery, emulated on the host, against the host's own loops: maps bit for
// bit, sums within rounding, and the same bits in whatever order threads and blocks run.
#define QTRAIN_EMULATE_KERNELS

#include <gtest/gtest.h>

#include "engine/kernels/bordered.h"
#include "engine/kernels/codes.h"
#include "engine/kernels/softmax.h"
#include "engine/kernels/update.h"
#include "tests/engine/device/emulator.h"
#include "tests/engine/support.h"

namespace qtrain {
namespace {

using testing_support::EmulatedGpu;
using testing_support::Fibers;
using testing_support::identical;
using testing_support::in_any_order;
using testing_support::near;
using testing_support::random_values;

const Stream host{};

struct Case {
  std::string name;
  Grouping grouping;
  std::int64_t n = 0;
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

std::vector<Case> cases() {
  return {
      {"whole_one", {}, 1},
      {"whole_odd", {}, 8193},
      {"whole_packets", {}, 16384},
      {"whole_many_parts", {}, 70 * 8192 + 3},  // more than one thread merges by itself
      {"outer_of_one_element", {.outer = 7}, 7},
      {"outer_small_odd", {.outer = 3}, 3 * 17},
      {"outer_packed", {.outer = 3}, 3 * 576},
      {"outer_block_and_one", {.outer = 5}, 5 * 8193},
      {"outer_many_parts", {.outer = 2}, 2 * (65 * 8192 + 8)},
      {"ranges_one_turn", {.inner = 4, .run = 3}, 12},
      {"ranges_of_one_channel", {.inner = 5, .run = 1}, 5 * 8200},
      {"ranges_odd_run", {.inner = 3, .run = 7}, 21 * 625},
      {"ranges_run_longer_than_a_part", {.inner = 2, .run = 8195}, 2 * 8195 * 3},
      {"channels_of_samples", {.outer = 3, .inner = 4, .run = 1}, 3 * 4 * 901},
      {"ranges_of_samples", {.outer = 5, .inner = 2, .run = 11}, 5 * 22 * 77},
  };
}

// A wrong group shows in the value.
struct OfGroup {
  const float* factors;
  float factor = -1;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { factor = factors[group]; }
  QTRAIN_HOST_DEVICE float operator()(float x) const { return x * factor + 1; }
};
struct TermsOfGroup {
  OfGroup f;
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) { f.prepare(group); }
  QTRAIN_HOST_DEVICE Mapped<3> operator()(float x, float g) const { return {f(x) - g, {x * g, f(x), 1}}; }
};
struct Extremes {
  QTRAIN_HOST_DEVICE Terms<2> operator()(float x) const { return {x, -x}; }
};

class EmulatedGroups : public testing::TestWithParam<Case> {
 protected:
  const Case& c_ = GetParam();
  std::int64_t groups_ = c_.grouping.groups();
  std::vector<float> factors_ = random_values(groups_, 5);
  std::vector<float> x_ = random_values(c_.n, 1);
  std::vector<float> g_ = random_values(c_.n, 2);
};

TEST_P(EmulatedGroups, MapsAreTheHosts) {
  std::vector<float> want(x_.size());
  map_groups(host, c_.n, c_.grouping, OfGroup{factors_.data()}, want.data(), x_.data());
  const auto got = in_any_order([&](const Stream& stream) {
    std::vector<float> y(x_.size() + 1, -7);
    device::map_groups(stream, c_.n, c_.grouping, OfGroup{factors_.data()}, y.data(), x_.data());
    EXPECT_EQ(y.back(), -7);
    y.pop_back();
    return y;
  });
  EXPECT_TRUE(identical(got, want));
}

TEST_P(EmulatedGroups, MapsInPlaceAndUnaligned) {
  std::vector<float> want(x_.size());
  map_groups(host, c_.n, c_.grouping, OfGroup{factors_.data()}, want.data(), x_.data());
  const auto got = in_any_order([&](const Stream& stream) {
    std::vector<float> y(x_.size() + 3);
    std::copy(x_.begin(), x_.end(), y.begin() + 3);
    device::map_groups(stream, c_.n, c_.grouping, OfGroup{factors_.data()}, y.data() + 3,
                       static_cast<const float*>(y.data() + 3));
    return std::vector<float>(y.begin() + 3, y.end());
  });
  EXPECT_TRUE(identical(got, want));
}

TEST_P(EmulatedGroups, SumsAreTheHosts) {
  const auto results = static_cast<std::size_t>(3 * groups_);
  std::vector<float> want(results + x_.size());
  map_reduce_groups<3>(host, c_.n, c_.grouping, TermsOfGroup{{factors_.data()}}, want.data(),
                       want.data() + results, x_.data(), g_.data());
  const auto got = in_any_order([&](const Stream& stream) {
    std::vector<float> out(results + x_.size());
    device::map_reduce_groups<3>(stream, c_.n, c_.grouping, TermsOfGroup{{factors_.data()}}, out.data(),
                                 out.data() + results, x_.data(), g_.data());
    return out;
  });
  const auto split = static_cast<std::ptrdiff_t>(results);
  EXPECT_TRUE(near(std::vector<float>(got.begin(), got.begin() + split),
                   std::vector<float>(want.begin(), want.begin() + split), 2e-6));
  EXPECT_TRUE(identical(std::vector<float>(got.begin() + split, got.end()),
                        std::vector<float>(want.begin() + split, want.end())));
}

TEST_P(EmulatedGroups, MaximaAreTheHosts) {
  x_[x_.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> want(static_cast<std::size_t>(2 * groups_));
  reduce_groups<2, Maximum>(host, c_.n, c_.grouping, Extremes(), want.data(), x_.data());
  const auto got = in_any_order([&](const Stream& stream) {
    std::vector<float> out(want.size());
    device::reduce_groups<2, Maximum>(stream, c_.n, c_.grouping, Extremes(), out.data(), x_.data());
    return out;
  });
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_TRUE(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) << i;
}

template <int bits>
struct Levels {
  static constexpr int count = 1 << bits;
  float levels[count]{};
  float thresholds[count]{};
  std::int32_t codes[count]{};
  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    for (int i = 0; i < count; ++i) {
      levels[i] = -1 + 2.0F / count * (static_cast<float>(i) + 0.001F * static_cast<float>(group % 100));
      thresholds[i] = levels[i] - 0.7F / count;
      codes[i] = (i * 5 + 3 + static_cast<std::int32_t>(group)) % count;
    }
  }
};

template <int bits>
void expect_codes(const Case& c, const std::vector<float>& x) {
  const auto results = static_cast<std::size_t>(code_sums(bits) * c.grouping.groups());
  std::vector<float> want(results + x.size());
  map_codes<bits>(host, c.n, c.grouping, Levels<bits>(), want.data(), want.data() + results, x.data());
  const auto got = in_any_order([&](const Stream& stream) {
    std::vector<float> out(results + x.size());
    device::map_codes<bits>(stream, c.n, c.grouping, Levels<bits>(), out.data(), out.data() + results,
                            x.data());
    return out;
  });
  const auto split = static_cast<std::ptrdiff_t>(results);
  EXPECT_TRUE(near(std::vector<float>(got.begin(), got.begin() + split),
                   std::vector<float>(want.begin(), want.begin() + split), 2e-6));
  EXPECT_TRUE(identical(std::vector<float>(got.begin() + split, got.end()),
                        std::vector<float>(want.begin() + split, want.end())));
  const auto rounded = in_any_order([&](const Stream& stream) {
    std::vector<float> out(x.size());
    device::map_levels<bits>(stream, c.n, c.grouping, Levels<bits>(), out.data(), x.data());
    return out;
  });
  EXPECT_TRUE(identical(rounded, std::vector<float>(want.begin() + split, want.end())));
}

TEST_P(EmulatedGroups, CodesAreTheHosts) {
  expect_codes<1>(c_, x_);
  if (c_.n > 50000) return;  // two sums are enough for what more parts change: who merges them
  expect_codes<3>(c_, x_);
  expect_codes<6>(c_, x_);
}

INSTANTIATE_TEST_SUITE_P(All, EmulatedGroups, testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

struct SumsOfParts {
  QTRAIN_HOST_DEVICE Terms<2> operator()(float x) const { return {x, x * x}; }
};
struct OddParts {
  QTRAIN_HOST_DEVICE bool operator()(std::int64_t part) const { return part % 2 == 1; }
};

TEST(EmulatedReductions, OfEachBlockAndOfSomeBlocks) {
  for (const std::int64_t n : {std::int64_t{1}, std::int64_t{8192}, std::int64_t{5 * 8192 + 77}}) {
    const std::vector<float> x = random_values(n, 3);
    const auto parts = static_cast<std::size_t>(2 * reduction_blocks(n));
    std::vector<float> want(parts + 2);
    reduce_each_block<2, Sum>(host, n, SumsOfParts(), want.data(), x.data());
    reduce_where<2, Sum>(host, n, OddParts(), SumsOfParts(), want.data() + parts, x.data());
    const auto got = in_any_order([&](const Stream& stream) {
      std::vector<float> out(want.size());
      device::reduce_each_block<2, Sum>(stream, n, SumsOfParts(), out.data(), x.data());
      device::reduce_where<2, Sum>(stream, n, OddParts(), SumsOfParts(), out.data() + parts, x.data());
      return out;
    });
    EXPECT_TRUE(near(got, want, 2e-6)) << n;
  }
}

struct Momentum {
  QTRAIN_HOST_DEVICE void operator()(float& p, float& v, float g) const {
    v = 0.5F * v + g;
    p -= v;
  }
};

TEST(EmulatedUpdates, ChangeWhatTheyShouldAndNothingElse) {
  for (const std::int64_t n : {std::int64_t{1}, std::int64_t{4096}, std::int64_t{9999}})
    for (const std::ptrdiff_t offset : {0, 1}) {
      const std::vector<float> g = random_values(n + 1, 4);
      std::vector<float> p = random_values(n + 2, 5);
      std::vector<float> v = random_values(n + 2, 6);
      const auto got = in_any_order([&](const Stream& stream) {
        std::vector<float> own_p = p;
        std::vector<float> own_v = v;
        device::update(stream, n, Momentum(), own_p.data() + offset, own_v.data() + offset, g.data());
        own_p.insert(own_p.end(), own_v.begin(), own_v.end());
        return own_p;
      });
      update(host, n, Momentum(), p.data() + offset, v.data() + offset, g.data());
      p.insert(p.end(), v.begin(), v.end());
      EXPECT_TRUE(identical(got, p)) << n << " at " << offset;
    }
}

TEST(EmulatedUpdates, OfSomeBlocks) {
  for (const std::int64_t n : {std::int64_t{1}, std::int64_t{8193}, std::int64_t{5 * 8192 + 77}}) {
    const std::vector<float> g = random_values(n, 4);
    const std::vector<float> p = random_values(n + 1, 5);
    const std::vector<float> v = random_values(n + 1, 6);
    const auto changed = [&](auto&& run) {
      std::vector<float> all = p;
      std::vector<float> own_v = v;
      run(all.data(), own_v.data());
      all.insert(all.end(), own_v.begin(), own_v.end());
      return all;
    };
    const auto want = changed([&](float* own_p, float* own_v) {
      for (std::int64_t i = 0; i < n; ++i)
        if (i / reduction_block % 2 == 1) Momentum()(own_p[i], own_v[i], g[static_cast<std::size_t>(i)]);
    });
    EXPECT_TRUE(identical(changed([&](float* own_p, float* own_v) {
                            update_where(host, n, OddParts(), Momentum(), own_p, own_v, g.data());
                          }),
                          want))
        << n;
    const auto got = in_any_order([&](const Stream& stream) {
      return changed([&](float* own_p, float* own_v) {
        device::update_where(stream, n, OddParts(), Momentum(), own_p, own_v, g.data());
      });
    });
    EXPECT_TRUE(identical(got, want)) << n;
  }
}

TEST(EmulatedMaps, ConvertElementTypes) {
  constexpr std::int64_t n = 8192 + 13;
  const std::vector<float> x = random_values(n, 7);
  std::vector<BFloat16> want(n);
  map(host, n, Scaled{3.0F}, want.data(), x.data());
  EmulatedGpu gpu(Fibers::Order::forward);
  std::vector<BFloat16> got(n);
  device::map_groups(gpu.stream(), n, {}, Scaled{3.0F}, got.data(), x.data());
  EXPECT_EQ(std::memcmp(got.data(), want.data(), n * sizeof(BFloat16)), 0);
}

TEST(EmulatedRows, SoftmaxAndHitsAreTheHosts) {
  constexpr std::int64_t rows = 3;
  for (const std::int64_t classes : {1, 10, 256, 1000}) {
    std::vector<float> z = random_values(rows * classes, 8, {.low = -3, .high = 3});
    z[0] = z[static_cast<std::size_t>(classes) - 1];  // a tie
    const std::vector<std::int64_t> labels = {classes - 1, 0, classes / 2};
    const auto values = static_cast<std::size_t>(rows * classes);
    const std::vector<std::int64_t> partners = {0, 0, classes - 1};
    const float lambda = 0.3F;
    const auto loss = [&](std::vector<float>& out) {
      return SoftmaxLoss{z.data(), labels.data(), out.data(), out.data() + values, classes, 0.1F};
    };
    const auto mixed_loss = [&](std::vector<float>& out) {
      SoftmaxLoss mixed = loss(out);
      mixed.losses = out.data() + values + 2 * rows;
      mixed.partner_labels = partners.data();
      mixed.lambda = &lambda;
      return mixed;
    };
    const auto hit = [&](std::vector<float>& out) {
      return Hit{z.data(), labels.data(), out.data() + values + rows, classes, 2};
    };
    std::vector<float> want(values + 3 * rows);
    for_rows(host, rows, mixed_loss(want));
    for_rows(host, rows, loss(want));
    for_rows(host, rows, hit(want));
    const auto got = in_any_order([&](const Stream& stream) {
      std::vector<float> out(want.size());
      device::launch(stream, rows, device::SoftmaxRows{mixed_loss(out)});
      device::launch(stream, rows, device::SoftmaxRows{loss(out)});
      device::launch(stream, rows, device::HitRows{hit(out)});
      return out;
    });
    EXPECT_TRUE(near(got, want, 1e-6)) << classes;
  }
}

TEST(EmulatedRows, LabelsThatNoClassHasGiveNaN) {
  const std::vector<float> z = random_values(6, 9);
  const std::vector<std::int64_t> labels = {3, -1};
  std::vector<float> out(10);
  EmulatedGpu gpu(Fibers::Order::forward);
  device::launch(gpu.stream(), 2,
                 device::SoftmaxRows{{z.data(), labels.data(), out.data(), out.data() + 6, 3, 0}});
  device::launch(gpu.stream(), 2, device::HitRows{{z.data(), labels.data(), out.data() + 8, 3, 3}});
  EXPECT_TRUE(std::isnan(out[6]) && std::isnan(out[7]));
  EXPECT_EQ(out[8] + out[9], 0);
}

struct CountUp {
  float* counts;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const { counts[i] += 1; }
};

TEST(EmulatedForEach, VisitsEveryIndexOnce) {
  for (const std::int64_t n : {1, 127, 128, 129, 1000}) {
    const auto got = in_any_order([&](const Stream& stream) {
      std::vector<float> counts(static_cast<std::size_t>(n) + 1);
      device::for_each(stream, n, CountUp{counts.data()});
      return counts;
    });
    std::vector<float> want(static_cast<std::size_t>(n) + 1, 1.0F);
    want.back() = 0;
    EXPECT_TRUE(identical(got, want)) << n;
  }
}

struct Affine {
  QTRAIN_HOST_DEVICE float operator()(float x) const { return 2 * x + 1; }
};
struct Gradient {
  QTRAIN_HOST_DEVICE Mapped<2> operator()(float x, float g) const { return {x * g, {g, x + g}}; }
};

TEST(EmulatedBorders, AreTheHosts) {
  const std::vector<std::pair<Shape, Border>> sizes = {
      {{1, 1, 1, 1}, {{1, 1}, {1, 1}}},  {{2, 3, 4, 5}, {}},
      {{2, 5, 3, 7}, {{1, 2}, {0, 0}}},  {{2, 300, 3, 31}, {{1, 1}, {1, 1}}},
      {{9, 2, 90, 3}, {{1, 1}, {1, 2}}}, {{2, 3, 1, 2}, {{4, 5}, {6, 3}}},
  };
  for (const auto& [images, border] : sizes) {
    const BorderedRows rows(images, border);
    const auto inner = static_cast<std::size_t>(images.numel());
    const auto outer = static_cast<std::size_t>(border.around(images).numel());
    const std::vector<float> x = random_values(images.numel(), 1);
    const std::vector<float> g = random_values(border.around(images).numel(), 2);
    std::vector<float> want(outer + outer + inner + inner + 2);
    const auto run = [&](std::vector<float>& out, const auto& bordered, const auto& filled,
                         const auto& inside, const auto& reduced) {
      float* at = out.data();
      bordered(at);
      filled(at + outer);
      inside(at + 2 * outer);
      reduced(at + 2 * outer + inner, at + 2 * outer + 2 * inner);
    };
    run(
        want, [&](float* y) { map_bordered(host, rows, Affine(), y, x.data()); },
        [&](float* y) { fill_border(host, rows, 0.25F, y, x.data()); },
        [&](float* y) { map_inside(host, rows, Affine(), y, g.data()); },
        [&](float* y, float* sums) {
          map_reduce_bordered<2>(host, rows, Gradient(), sums, y, g.data(), x.data());
        });
    const auto got = in_any_order([&](const Stream& stream) {
      std::vector<float> out(want.size());
      run(
          out,
          [&](float* y) { device::map_bordered(stream, rows, Affine(), detail::ValueAtZero(), y, x.data()); },
          [&](float* y) {
            device::map_bordered(stream, rows, Copied(), detail::Constant{0.25F}, y, x.data());
          },
          [&](float* y) { device::map_inside(stream, rows, Affine(), y, g.data()); },
          [&](float* y, float* sums) {
            device::map_reduce_bordered<2>(stream, rows, Gradient(), sums, y, g.data(), x.data());
          });
      return out;
    });
    EXPECT_TRUE(identical(std::vector<float>(got.begin(), got.end() - 2),
                          std::vector<float>(want.begin(), want.end() - 2)));
    EXPECT_TRUE(near(std::vector<float>(got.end() - 2, got.end()),
                     std::vector<float>(want.end() - 2, want.end()), 2e-6));
  }
}

struct Both {
  QTRAIN_HOST_DEVICE float operator()(float x, float g) const { return x - 2 * g; }
};

std::vector<BFloat16> rounded(const std::vector<float>& values) {
  std::vector<BFloat16> result;
  for (const float v : values) result.push_back(to_bfloat16(v));
  return result;
}

TEST(EmulatedBorders, OfBf16AreTheHosts) {
  const Shape images{2, 5, 3, 7};
  const Border border{{1, 2}, {0, 1}};
  const BorderedRows rows(images, border);
  const std::vector<BFloat16> x = rounded(random_values(images.numel(), 1));
  const std::vector<BFloat16> g = rounded(random_values(border.around(images).numel(), 2));
  const auto run = [&](const auto& bordered, const auto& inside, const auto& reduced) {
    std::vector<BFloat16> wide(g.size());
    std::vector<BFloat16> inner(x.size());
    std::vector<BFloat16> mapped(x.size());
    std::vector<float> sums(2);
    bordered(wide.data());
    inside(inner.data());
    reduced(mapped.data(), sums.data());
    std::vector<float> all;
    for (const auto& part : {wide, inner, mapped})
      for (const BFloat16 v : part) all.push_back(to_float(v));
    all.insert(all.end(), sums.begin(), sums.end());
    return all;
  };
  const std::vector<float> want =
      run([&](BFloat16* y) { map_bordered(host, rows, Affine(), y, x.data()); },
          [&](BFloat16* y) { map_inside(host, rows, Both(), y, g.data(), x.data()); },
          [&](BFloat16* y, float* sums) {
            map_reduce_bordered<2>(host, rows, Gradient(), sums, y, g.data(), x.data());
          });
  const std::vector<float> got = in_any_order([&](const Stream& stream) {
    return run(
        [&](BFloat16* y) {
          device::map_bordered(stream, rows, Affine(), detail::ValueAtZero(), y, x.data());
        },
        [&](BFloat16* y) { device::map_inside(stream, rows, Both(), y, g.data(), x.data()); },
        [&](BFloat16* y, float* sums) {
          device::map_reduce_bordered<2>(stream, rows, Gradient(), sums, y, g.data(), x.data());
        });
  });
  EXPECT_TRUE(identical(std::vector<float>(got.begin(), got.end() - 2),
                        std::vector<float>(want.begin(), want.end() - 2)));
  EXPECT_TRUE(near(std::vector<float>(got.end() - 2, got.end()),
                   std::vector<float>(want.end() - 2, want.end()), 2e-6));
}

}  // namespace
}  // namespace qtrain
