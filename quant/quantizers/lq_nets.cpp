// lq-nets: levels that are sums of a learned basis (Zhang, Yang, Ye, Hua 2018, arXiv:1807.10029; code of
// QTool: Chen, Liu, Zhuang, Shen et al., github aim-uofa/model-quantization).
//
// A group has a basis v of b numbers. Its 2^b levels are  c . v  for all codes c: digits in {0, 1} (half
// range, inputs) or {-1, 1} (full range, weights). With the levels in ascending order l_0, l_1, ...
//   y = l_i,  i = the number of thresholds t_1 < t_2 < ... below x      t_i = (l_{i-1} + l_i) / 2
// or, with `scale` s, t_i = s l_{i-1} + (1 - s) l_i; of a full range s and 1 - s change places below the
// middle, and the middle one stays.
// Backward: dL/dx = g; for inputs 0 where x >= the top level.
// A training forward then moves the basis towards the least-squares fit to its codes c(x):
//   v* = (sum c c^T)^-1 sum c x          v <- 0.9 v + 0.1 v*      custom_update: v <- (t v + v*) / (t + 1)
//
// `adaptive` quantizes (x - shift) / scale and undoes that on y. As scale > 0, the thresholds and levels are
// moved instead of the elements: it costs nothing. What v* needs is summed up in the forward pass itself: how
// often each pair of digits is 1 together, and the sum of x where each digit is 1.
#include <array>
#include <bit>
#include <cmath>

#include "engine/core/error.h"
#include "engine/kernels/codes.h"
#include "engine/kernels/scalar_functors.h"
#include "quant/fake_quantize.h"
#include "quant/group_statistics.h"
#include "quant/grouped_quantizer.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

constexpr int most_bits = 8;
constexpr double normal_median = 0.6745;  // of |x| for a standard normal x: where the initial levels lie

// --- levels
// ----------------------------------------------------------------------------------------------

// A group's row of the table that the elementwise math reads: levels, thresholds (from index 1 on) and the
// levels' codes, `count` of each.
struct TableRow {
  float* levels;
  float* thresholds;
  float* codes;
  QTRAIN_HOST_DEVICE TableRow(float* table, std::int64_t group, std::int64_t count)
      : levels(table + group * 3 * count), thresholds(levels + count), codes(thresholds + count) {}
};

// Shift and scale of the normalization: one element each for every `share` groups in turn.
struct NormalizationOf {
  const float* shifts = nullptr;  // nullptr: nothing is normalized
  const float* scales = nullptr;
  std::int64_t share = 1;
  QTRAIN_HOST_DEVICE float shift(std::int64_t group) const { return shifts ? shifts[group / share] : 0.0F; }
  QTRAIN_HOST_DEVICE float scale(std::int64_t group) const { return scales ? scales[group / share] : 1.0F; }
};

// The scale of a span from its mean and standard deviation.
struct ScaleOfSpread {
  bool by_mean;
  bool by_std;
  QTRAIN_HOST_DEVICE float operator()(float mean, float std) const {
    // An input whose mean isn't positive has no such measure: it stays as it is.
    const float measure = by_std ? std + 1e-5F : (by_mean && !(mean <= 0) ? mean + 1e-5F : 1.0F);
    return clip(measure, 0.0F, 1e30F);
  }
};

// Fills one row of the table.
struct MakeLevels {
  const float* basis;  // [bits, groups]
  float* table;
  NormalizationOf normalization;
  std::int64_t groups;
  int bits;
  float scale;
  bool half_range;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t row_index) const {
    const std::int64_t group = row_index % groups;
    const int count = 1 << bits;
    const TableRow row(table, row_index, count);
    for (int code = 0; code < count; ++code) {
      float level = 0;
      for (int j = 0; j < bits; ++j) {
        const float v = basis[j * groups + group];
        const bool one = (code >> j & 1) != 0;
        level += one ? v : (half_range ? 0.0F : -v);
      }
      insert(row, code, level);
    }
    const float shift = normalization.shift(row_index);
    const float unit = normalization.scale(row_index);
    for (int i = 1; i < count; ++i) {
      float below = scale;
      if (!half_range && i < count / 2) below = 1.0F - scale;
      if (!half_range && i == count / 2) below = 0.5F;
      const float between = below * row.levels[i - 1] + (1.0F - below) * row.levels[i];
      // Rounding mustn't disturb their order, on which a search by halving depends.
      row.thresholds[i] = clip(between, row.levels[i - 1], row.levels[i]) * unit + shift;
    }
    row.thresholds[0] = 0;
    for (int i = 0; i < count; ++i) row.levels[i] = row.levels[i] * unit + shift;
  }

  // Keeps the first `code` levels of the row sorted; equal ones in the order of their codes.
  QTRAIN_HOST_DEVICE static void insert(const TableRow& row, int code, float level) {
    int i = code;
    for (; i > 0 && row.levels[i - 1] > level; --i) {
      row.levels[i] = row.levels[i - 1];
      row.codes[i] = row.codes[i - 1];
    }
    row.levels[i] = level;
    row.codes[i] = static_cast<float>(code);
  }
};

// --- the elementwise math
// ----------------------------------------------------------------------------------------------

// What the kernels of codes.h need of a group.
template <int bits>
struct LevelRow {
  static constexpr int count = 1 << bits;
  const float* table;
  float levels[count]{};
  float thresholds[count]{};
  std::int32_t codes[count]{};

  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    const float* const row = table + group * 3 * count;
    for (int i = 0; i < count; ++i) {
      levels[i] = row[i];
      thresholds[i] = row[count + i];
      codes[i] = static_cast<std::int32_t>(row[2 * count + i]);
    }
  }
};

// `sums`: for the fit of the basis, or nullptr.
template <int bits>
void round_to_levels(const Stream& stream, std::int64_t n, const Grouping& grouping, const float* table,
                     float* sums, float* y, const float* x) {
  const LevelRow<bits> row{table};
  if (sums != nullptr)
    map_codes<bits>(stream, n, grouping, row, sums, y, x);
  else
    map_levels<bits>(stream, n, grouping, row, y, x);
}

// One kind for every width, as backward needs no more of the levels than the top one.
template <bool cut_above>
struct LevelMath {
  static constexpr bool straight_through = !cut_above;
  std::array<const float*, 1> constants{};  // the table
  int bits = 1;
  float top = 0;

  QTRAIN_HOST_DEVICE void prepare(std::int64_t group) {
    const std::int64_t count = std::int64_t{1} << bits;
    top = constants[0][group * 3 * count + count - 1];
  }
  QTRAIN_HOST_DEVICE float backward(float x, float g) const { return x >= top ? 0.0F : g; }

  void run(const Stream& stream, std::int64_t n, const Grouping& grouping, float* y, const float* x,
           float* sums) const {
    using Round = decltype(&round_to_levels<1>);
    constexpr std::array<Round, most_bits> round = {
        round_to_levels<1>, round_to_levels<2>, round_to_levels<3>, round_to_levels<4>,
        round_to_levels<5>, round_to_levels<6>, round_to_levels<7>, round_to_levels<8>};
    round[static_cast<std::size_t>(bits - 1)](stream, n, grouping, constants[0], sums, y, x);
  }
};

// --- the basis
// ----------------------------------------------------------------------------------------------

// Solves A v = r for a symmetric positive definite A by A = L D L^T; false where A is singular.
QTRAIN_HOST_DEVICE bool solve(int n, double (&a)[most_bits][most_bits], double (&r)[most_bits]) {
  constexpr double least_pivot = 1e-11;  // of its diagonal element; counts can't come nearer to 0
  for (int j = 0; j < n; ++j) {
    const double diagonal = a[j][j];
    for (int k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k] * a[k][k];
    if (!(a[j][j] > least_pivot * diagonal)) return false;
    for (int i = j + 1; i < n; ++i) {
      for (int k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k] * a[k][k];
      a[i][j] /= a[j][j];
    }
  }
  for (int j = 0; j < n; ++j)
    for (int k = 0; k < j; ++k) r[j] -= a[j][k] * r[k];
  for (int j = n - 1; j >= 0; --j) {
    r[j] /= a[j][j];
    for (int k = j + 1; k < n; ++k) r[j] -= a[k][j] * r[k];
  }
  return true;
}

struct UpdateBasis {
  const float* sums;  // [code_sums(bits), rows]
  float* basis;       // [bits, groups]
  NormalizationOf normalization;
  std::int64_t rows;  // of every sample for itself, where samples are normalized
  std::int64_t groups;
  double elements;  // of a row
  int bits;
  bool half_range;
  bool ridge;
  double share;  // of the fit in the new basis

  QTRAIN_HOST_DEVICE double sum(int position, std::int64_t row) const {
    return static_cast<double>(sums[position * rows + row]);
  }

  QTRAIN_HOST_DEVICE void operator()(std::int64_t group) const {
    double a[most_bits][most_bits]{};
    double r[most_bits]{};
    for (std::int64_t row = group; row < rows; row += groups) add_row(row, a, r);
    for (int j = 0; j < bits; ++j) {
      if (ridge) {
        a[j][j] = (a[j][j] + 1e-4) * 1.000001;
        r[j] += 1e-4 * static_cast<double>(basis[j * groups + group]);
      } else if (a[j][j] == 0) {
        a[j][j] = 1e-5;
      }
    }
    if (!solve(bits, a, r)) return;
    for (int j = 0; j < bits; ++j)
      if (!(fabs(r[j]) <= static_cast<double>(std::numeric_limits<float>::max()))) return;
    for (int j = 0; j < bits; ++j) {
      float& v = basis[j * groups + group];
      v = static_cast<float>((1 - share) * static_cast<double>(v) + share * r[j]);
    }
  }

  // With digits d in {0, 1}, a full range has c = 2 d - 1.
  QTRAIN_HOST_DEVICE void add_row(std::int64_t row, double (&a)[most_bits][most_bits],
                                  double (&r)[most_bits]) const {
    const auto shift = static_cast<double>(normalization.shift(row));
    const auto scale = static_cast<double>(normalization.scale(row));
    const int pairs = pair_position(bits, bits, bits);
    const double total = (sum(pairs + bits, row) - shift * elements) / scale;
    for (int j = 0; j < bits; ++j) {
      const double ones = sum(pair_position(bits, j, j), row);
      const double where_one = (sum(pairs + j, row) - shift * ones) / scale;
      r[j] += half_range ? where_one : 2 * where_one - total;
      for (int k = 0; k <= j; ++k) {
        const double both = sum(pair_position(bits, k, j), row);
        const double others = sum(pair_position(bits, k, k), row);
        a[j][k] += half_range ? both : 4 * both - 2 * ones - 2 * others + elements;
      }
    }
  }
};

// --- the quantizer
// ----------------------------------------------------------------------------------------------

class LqNets final : public GroupedQuantizer {
 public:
  explicit LqNets(const QuantizerSpec& spec)
      : GroupedQuantizer(spec.role == Role::weight ? "lq-nets weight" : "lq-nets activation", spec),
        scale_(static_cast<float>(spec.options.real("scale"))),
        adaptive_(spec.options.choice("adaptive")),
        custom_update_(spec.options.flag("custom_update")),
        fan_(fan_of(spec.shape)),
        basis_(add_buffer("basis", initial_basis())) {
    if (!(scale_ >= 0 && scale_ <= 1))
      throw ValueError({.where = std::string(op()),
                        .what = "option 'scale': thresholds lie between their levels",
                        .got = std::to_string(scale_),
                        .expected = "0..1",
                        .hint = ""});
    if (custom_update_) count_forwards();
  }

  // The average takes the number of forwards.
  bool is_steady() const override { return !custom_update_ && GroupedQuantizer::is_steady(); }

  // The basis starts anew, as it has another length.
  void set_bits(int bits) override {
    const int before = this->bits();
    GroupedQuantizer::set_bits(bits);
    try {
      if (width() == basis_width()) return;
      const Tensor basis = initial_basis();
      replace_buffer(basis_, basis.defined() && basis_.defined() ? basis.to(basis_.device()) : basis);
      note_change();
    } catch (const ValueError&) {
      GroupedQuantizer::set_bits(before);
      throw;
    }
  }

 protected:
  // Of a half range, 0 is a level, and its code has no digits: it adds nothing to any sum. A full range has
  // no 0, measures of a sample count all elements, and with scale = 0 the level below 0 takes it.
  bool ignores_zeros() const override { return half_range() && adaptive_ == "none" && scale_ > 0; }

  Tensor quantize(const Tensor& x, const Grouping& channels) override {
    return is_weight() ? run(LevelMath<false>{.bits = width()}, x, channels)
                       : run(LevelMath<true>{.bits = width()}, x, channels);
  }

 private:
  struct Normalization {
    Tensor shift;
    Tensor scale;
    std::int64_t share = 1;
    NormalizationOf pointers() const {
      if (!shift.defined()) return {};
      return {shift.data<float>(), scale.data<float>(), share};
    }
  };

  static double fan_of(const Shape& shape) {
    double fan = 1;
    for (std::size_t i = 1; i < shape.rank(); ++i) fan *= static_cast<double>(shape[i]);
    return fan;
  }

  bool is_weight() const { return role() == Role::weight; }
  int basis_width() const { return basis_.defined() ? static_cast<int>(basis_.dim(0)) : 0; }

  // The basis's length, 0 at 32 bits. ValueError where there is none.
  int width() const {
    const std::int64_t count = levels();
    if (count > std::int64_t{1} << (float_bits - 1)) return 0;
    if (count < 2 || count > 1 << most_bits || !std::has_single_bit(static_cast<std::uint64_t>(count)))
      throw ValueError({.where = std::string(op()),
                        .what = "levels are all sums of a basis, so their number is a power of 2",
                        .got = std::to_string(count) + " levels",
                        .expected = "2, 4, 8, ... 256: 1 to 8 bits (32: not quantized)",
                        .hint = ""});
    return std::countr_zero(static_cast<std::uint64_t>(count));
  }

  Tensor initial_basis() const {
    const int bits = width();
    if (bits == 0) return {};
    double base = normal_median / static_cast<double>(1 << (bits - 1));
    base *= is_weight() ? std::sqrt(2 / fan_) : 2;
    std::vector<float> values;
    for (int j = 0; j < bits; ++j)
      values.insert(values.end(), static_cast<std::size_t>(groups()), static_cast<float>(base * (1 << j)));
    return Tensor::from_values({bits, groups()}, values);
  }

  template <class Math>
  Tensor run(const Math& math, const Tensor& x, const Grouping& channels) {
    const Stream stream = backend(x.device()).stream();
    const int bits = math.bits;
    Grouping grouping = channels;
    if (!is_weight() && (adaptive_ == "mean" || adaptive_ == "var")) grouping.outer = x.dim(0);
    const Normalization normalization = normalization_of(x, grouping);
    const std::int64_t rows = grouping.groups();
    const Tensor table = Tensor::empty({rows, 3, std::int64_t{1} << bits}, DType::f32, x.device());
    for_each(stream, rows,
             MakeLevels{basis_.data<float>(), table.data<float>(), normalization.pointers(), groups(), bits,
                        scale_, half_range()});
    if (!is_training()) return fake_quantize<0>(op(), x, math, {}, grouping, {table});
    const Tensor sums = Tensor::empty({code_sums(bits) * rows}, DType::f32, x.device());
    Tensor y = fake_quantize<0>(op(), x, math, {}, grouping, {table}, sums.data<float>());
    const std::int64_t elements = x.numel() / rows;
    for_each(stream, groups(),
             UpdateBasis{sums.data<float>(), basis_.data<float>(), normalization.pointers(), rows, groups(),
                         static_cast<double>(elements), bits, half_range(), is_weight(),
                         custom_update_ ? 1 / static_cast<double>(forwards()) : 0.1});
    basis_.bump_version();
    return y;
  }

  // Inputs: per sample, or the tensor's minimum; weights: per group. `grouping` has the samples as its spans.
  Normalization normalization_of(const Tensor& x, const Grouping& grouping) const {
    if (adaptive_ == "none") return {};
    const Stream stream = backend(x.device()).stream();
    if (adaptive_ == "min") {
      const Tensor minimum = Tensor::empty({1}, DType::f32, x.device());
      reduce<1, Minimum>(stream, x.numel(), Itself(), minimum.data<float>(), x.data<float>());
      return {minimum, Tensor::full({1}, 1, x.device()), groups()};
    }
    const Grouping spans{.outer = grouping.outer};
    const Spread spread = spread_of(x, spans);
    const ScaleOfSpread scale{.by_mean = !is_weight() && adaptive_ == "mean",
                              .by_std = adaptive_ == "var" || adaptive_ == "mean-var"};
    map(stream, spans.outer, scale, spread.std.data<float>(), spread.mean.data<float>(),
        spread.std.data<float>());
    const bool shifts = is_weight() && adaptive_ != "var";
    return {shifts ? spread.mean : Tensor::zeros({spans.outer}, DType::f32, x.device()), spread.std,
            is_weight() ? 1 : groups()};
  }

  float scale_;
  std::string adaptive_;
  bool custom_update_;
  double fan_;
  const Tensor& basis_;
};

std::vector<OptionSpec> own_options(Role role) {
  const bool weight = role == Role::weight;
  std::vector<OptionSpec> all = {
      {.name = "adaptive",
       .type = OptionType::choice,
       .default_value = "none",
       .help = weight
                   ? "normalize each group first: subtract its mean, divide by its standard deviation, both"
                   : "normalize first: divide each sample by its mean or standard deviation, or subtract "
                     "the minimum",
       .choices = weight ? std::vector<std::string>{"none", "mean", "var", "mean-var"}
                         : std::vector<std::string>{"none", "mean", "var", "min"}},
      {.name = "scale",
       .type = OptionType::real,
       .default_value = "0.5",
       .help = "weight of the lower level in a threshold; 0.5: midway",
       .choices = {}},
      {.name = "custom_update",
       .type = OptionType::boolean,
       .default_value = "false",
       .help = "the basis is the mean over all training forwards instead of a moving one",
       .choices = {}}};
  if (weight)
    all.push_back({.name = "half_range",
                   .type = OptionType::boolean,
                   .default_value = "false",
                   .help = "codes from digits 0 and 1 instead of -1 and 1",
                   .choices = {}});
  return with_rule_options(std::move(all), role,
                           {"adaptive", "norm_groups", "restore", "gamma", "correlate"});
}

const Registration registration{{
    .name = "lq-nets",
    .summary = "levels are sums of a basis that is fitted to the data in every training forward",
    .source = "Zhang, Yang, Ye, Hua 2018, arXiv:1807.10029; github aim-uofa/model-quantization",
    .weight_options = own_options(Role::weight),
    .activation_options = own_options(Role::activation),
    .make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
      return std::make_shared<LqNets>(spec);
    },
    // The first and the last layer stay float.
    .first_layer = {.quantize_input = false, .least_weight_bits = float_bits},
    .last_layer = {.quantize_input = false, .least_weight_bits = float_bits},
}};

}  // namespace
}  // namespace qtrain::quant
