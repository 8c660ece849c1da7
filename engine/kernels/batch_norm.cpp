// The host's loops. The matrix of rows and channels is read in wide rows: as many rows side by side as make
// at least 64 columns, with the channels' numbers repeated, so that narrow layers have long loops too. Tiles
// of wide rows stay in cache between the steps that a pass has: normalize, what follows y, sums.
#include "engine/kernels/batch_norm.h"

#include <vector>

namespace qtrain {
namespace {

constexpr int columns_at_once = 64;

struct Layout {
  std::int64_t n, channels, repeat, width, tile, block;  // in elements, `repeat` in rows

  explicit Layout(const Tensor& x)
      : n(x.numel()),
        channels(x.dim(1)),
        repeat((columns_at_once + channels - 1) / channels),
        width(repeat * channels),
        tile(width * std::max<std::int64_t>(4, 2048 / width)),
        block(4 * tile) {}
  std::int64_t rows() const { return n / channels; }
  std::int64_t tiles() const { return (n + tile - 1) / tile; }
  std::int64_t blocks() const { return (n + block - 1) / block; }
};

// The channels' numbers, repeated to the width of a wide row.
class Wide {
 public:
  Wide(const Layout& layout, const float* of_channels) : values_(static_cast<std::size_t>(layout.width)) {
    for (std::int64_t i = 0; i < layout.width; ++i)
      values_[static_cast<std::size_t>(i)] = of_channels[i % layout.channels];
  }
  const float* data() const { return values_.data(); }

 private:
  std::vector<float> values_;
};

struct WideCoefficients {
  Wide mean, slope, beta;
  WideCoefficients(const Layout& layout, const Tensor& coefficients)
      : mean(layout, coefficient(coefficients, Coefficient::mean)),
        slope(layout, coefficient(coefficients, Coefficient::slope)),
        beta(layout, coefficient(coefficients, Coefficient::beta)) {}
};

// Calls f(flag...) with every flag as a constant.
template <class F>
void with_flags(F&& f) {
  f();
}
template <class F, class... Rest>
void with_flags(F&& f, bool flag, Rest... rest) {
  if (flag)
    with_flags([&](auto... constants) { f(std::true_type(), constants...); }, rest...);
  else
    with_flags([&](auto... constants) { f(std::false_type(), constants...); }, rest...);
}

template <bool rectifies, bool adds>
void normalize_rows(std::int64_t width, std::int64_t count, const float* mean, const float* slope,
                    const float* beta, const float* x, const float* residual, float* y) {
  for (std::int64_t row = 0; row < count; row += width) {
    const std::int64_t columns = std::min(width, count - row);
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) {
      float v = normalize(x[row + c], mean[c], slope[c], beta[c]);
      if constexpr (adds) v += residual[row + c];
      y[row + c] = rectifies ? rectify(v) : v;
    }
  }
}

// y of `count` elements that start with a wide row.
void normalize_tile(const Layout& layout, const WideCoefficients& wide, bool relu, const float* x,
                    const float* residual, std::int64_t count, float* y) {
  with_flags(
      [&](auto rectifies, auto adds) {
        normalize_rows<decltype(rectifies)::value, decltype(adds)::value>(
            layout.width, count, wide.mean.data(), wide.slope.data(), wide.beta.data(), x, residual, y);
      },
      relu, residual != nullptr);
}

const float* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<float>() : nullptr;
}
float* place_or_null(const Tensor& t) {
  return t.defined() ? t.data<float>() : nullptr;
}

// Where a tile's gradient stops at the ReLU.
enum class Mask { none, by_x, by_y };

// One tile in the backward pass.
struct GradientOfTile {
  const float* x;
  const float* y;  // for Mask::by_y
  const float* g;
  const float* addend;  // or nullptr
  std::int64_t count;
};

// The gradient of y behind the ReLU at element i of a tile, in column c.
template <Mask mask, bool adds>
inline float gradient_at(const GradientOfTile& t, const float* mean, const float* slope, const float* beta,
                         std::int64_t i, std::int64_t c) {
  float g = t.g[i];
  if constexpr (adds) g += t.addend[i];
  if constexpr (mask == Mask::by_x) return normalize(t.x[i], mean[c], slope[c], beta[c]) > 0 ? g : 0.0F;
  if constexpr (mask == Mask::by_y) return t.y[i] > 0 ? g : 0.0F;
  return g;
}

// Both passes of the backward, over the same tiles.
class Backward {
 public:
  Backward(const BatchNormBackward& a, const detail::GradientTile& math, int terms)
      : a_(a),
        math_(math),
        terms_(terms),
        layout_(a.of.x),
        wide_(layout_, a.of.coefficients),
        x_(a.of.x.data<float>()),
        residual_(data_or_null(a.of.residual)),
        stored_y_(data_or_null(a.y)),
        grad_(a.grad.data<float>()),
        addend_(data_or_null(a.addend)),
        grad_residual_(place_or_null(a.gradients.residual)),
        grad_x_(place_or_null(a.gradients.x)),
        needs_y_(math != nullptr || (a.of.relu && (residual_ != nullptr || stored_y_ != nullptr))),
        mask_(!a.of.relu ? Mask::none : (needs_y_ ? Mask::by_y : Mask::by_x)),
        kept_g_(grad_residual_ != nullptr || math == nullptr ? grad_residual_ : grad_x_) {}

  void run(std::span<float* const> sums) {
    const std::int64_t columns = 2 * layout_.width;
    const Scratch<float> partial({}, layout_.blocks() * columns);
    const Scratch<double> terms({}, layout_.blocks() * terms_);
    std::fill_n(partial.data(), layout_.blocks() * columns, 0.0F);
    std::fill_n(terms.data(), layout_.blocks() * terms_, 0.0);
    parallel_for(layout_.blocks(), 1, [&](std::int64_t begin, std::int64_t end) {
      Buffers buffers(*this);
      for (std::int64_t b = begin; b < end; ++b)
        add_block(b, buffers, partial.data() + b * columns, terms.data() + b * terms_);
    });
    for (int k = 0; k < terms_; ++k) {
      double total = 0;
      for (std::int64_t b = 0; b < layout_.blocks(); ++b) total += terms.data()[b * terms_ + k];
      if (float* const sum = sums[static_cast<std::size_t>(k)]) *sum = static_cast<float>(total);
    }
    merge(partial.data());
    if (grad_x_ != nullptr) write_grad_x();
  }

 private:
  // What a thread keeps of a tile.
  struct Buffers {
    explicit Buffers(const Backward& b)
        : y(b.needs_y_ && b.stored_y_ == nullptr ? static_cast<std::size_t>(b.layout_.tile) : 0),
          g(b.math_ != nullptr ? static_cast<std::size_t>(b.layout_.tile) : 0) {}
    std::vector<float> y, g;
  };

  GradientOfTile tile_at(std::int64_t first, std::int64_t count, Buffers& buffers, double* terms) const {
    const float* y = nullptr;
    if (needs_y_) {
      y = stored_y_ != nullptr ? stored_y_ + first : buffers.y.data();
      if (stored_y_ == nullptr)
        normalize_tile(layout_, wide_, a_.of.relu, x_ + first,
                       residual_ != nullptr ? residual_ + first : nullptr, count, buffers.y.data());
    }
    if (math_ != nullptr) math_(y, first, count, buffers.g.data(), terms);
    return {x_ + first, y, math_ != nullptr ? buffers.g.data() : grad_ + first,
            addend_ != nullptr ? addend_ + first : nullptr, count};
  }

  template <class F>
  void with_mask(Mask mask, F&& f) const {
    if (mask == Mask::none) return f(std::integral_constant<Mask, Mask::none>());
    if (mask == Mask::by_x) return f(std::integral_constant<Mask, Mask::by_x>());
    f(std::integral_constant<Mask, Mask::by_y>());
  }

  // sums: of g and of g (x - mean), [2][width].
  void add_block(std::int64_t b, Buffers& buffers, float* sums, double* terms) const {
    const std::int64_t end = std::min(layout_.n, (b + 1) * layout_.block);
    for (std::int64_t first = b * layout_.block; first < end; first += layout_.tile) {
      const GradientOfTile t = tile_at(first, std::min(layout_.tile, end - first), buffers, terms);
      float* const store = kept_g_ != nullptr ? kept_g_ + first : nullptr;
      with_mask(mask_, [&](auto mask) {
        with_flags(
            [&](auto adds, auto stores) {
              add_tile<decltype(mask)::value, decltype(adds)::value, decltype(stores)::value>(t, store, sums);
            },
            t.addend != nullptr, store != nullptr);
      });
    }
  }

  template <Mask mask, bool adds, bool stores>
  void add_tile(const GradientOfTile& t, float* store, float* sums) const {
    for (std::int64_t c = 0; c < layout_.width; c += columns_at_once) {
      if (c + columns_at_once <= layout_.width)
        add_columns<mask, adds, stores, columns_at_once>(t, c, columns_at_once, store, sums);
      else
        add_columns<mask, adds, stores, 0>(t, c, layout_.width - c, store, sums);
    }
  }

  // `fixed`: the number of columns where it is known to the compiler, else 0. The sums then stay in
  // registers.
  template <Mask mask, bool adds, bool stores, int fixed>
  void add_columns(const GradientOfTile& t, std::int64_t c, std::int64_t columns, float* store,
                   float* sums) const {
    float total_g[columns_at_once];
    float total_gx[columns_at_once];
    std::copy_n(sums + c, columns, total_g);
    std::copy_n(sums + layout_.width + c, columns, total_gx);
    const float* mean = wide_.mean.data() + c;
    const float* slope = wide_.slope.data() + c;
    const float* beta = wide_.beta.data() + c;
    const auto add_row = [&](std::int64_t row, std::int64_t count) {
#pragma GCC ivdep
      for (std::int64_t l = 0; l < count; ++l) {
        const float g = gradient_at<mask, adds>(t, mean, slope, beta, row + l, l);
        if constexpr (stores) store[row + l] = g;
        total_g[l] += g;
        total_gx[l] += g * (t.x[row + l] - mean[l]);
      }
    };
    std::int64_t row = c;
    for (; row + columns <= t.count; row += layout_.width) add_row(row, fixed > 0 ? fixed : columns);
    if (row < t.count) add_row(row, t.count - row);
    std::copy_n(total_g, columns, sums + c);
    std::copy_n(total_gx, columns, sums + layout_.width + c);
  }

  // The gradients of gamma and beta, and what the second pass subtracts.
  void merge(const float* partial) {
    const std::int64_t channels = layout_.channels;
    mean_g_.resize(static_cast<std::size_t>(channels));
    along_x_.resize(static_cast<std::size_t>(channels));
    const BatchNormGradientMerge finish{coefficient(a_.of.coefficients, Coefficient::invstd),
                                        static_cast<double>(layout_.rows()),
                                        a_.training,
                                        place_or_null(a_.gradients.gamma),
                                        place_or_null(a_.gradients.beta),
                                        mean_g_.data(),
                                        along_x_.data()};
    parallel_for(channels, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = begin; c < end; ++c) {
        double sum_g = 0;
        double sum_gx = 0;
        for (std::int64_t b = 0; b < layout_.blocks(); ++b)
          for (std::int64_t at = c; at < layout_.width; at += channels) {
            const float* const of_block = partial + b * 2 * layout_.width;
            sum_g += static_cast<double>(of_block[at]);
            sum_gx += static_cast<double>(of_block[layout_.width + at]);
          }
        finish(c, sum_g, sum_gx);
      }
    });
  }

  void write_grad_x() const {
    const Wide mean_g(layout_, mean_g_.data());
    const Wide along_x(layout_, along_x_.data());
    parallel_for(layout_.tiles(), std::max<std::int64_t>(1, map_grain / layout_.tile),
                 [&](std::int64_t begin, std::int64_t end) {
                   Buffers buffers(*this);
                   for (std::int64_t i = begin; i < end; ++i) {
                     const std::int64_t first = i * layout_.tile;
                     const std::int64_t count = std::min(layout_.tile, layout_.n - first);
                     const bool kept = kept_g_ != nullptr;
                     const GradientOfTile t =
                         kept ? GradientOfTile{x_ + first, nullptr, kept_g_ + first, nullptr, count}
                              : tile_at(first, count, buffers, nullptr);
                     with_mask(kept ? Mask::none : mask_, [&](auto mask) {
                       with_flags(
                           [&](auto adds) {
                             write_tile<decltype(mask)::value, decltype(adds)::value>(
                                 t, mean_g.data(), along_x.data(), grad_x_ + first);
                           },
                           t.addend != nullptr);
                     });
                   }
                 });
  }

  template <Mask mask, bool adds>
  void write_tile(const GradientOfTile& t, const float* mean_g, const float* along_x, float* grad_x) const {
    const float* mean = wide_.mean.data();
    const float* slope = wide_.slope.data();
    const float* beta = wide_.beta.data();
    for (std::int64_t row = 0; row < t.count; row += layout_.width) {
      const std::int64_t columns = std::min(layout_.width, t.count - row);
#pragma GCC ivdep
      for (std::int64_t c = 0; c < columns; ++c) {
        const float g = gradient_at<mask, adds>(t, mean, slope, beta, row + c, c);
        grad_x[row + c] = slope[c] * (g - mean_g[c] - (t.x[row + c] - mean[c]) * along_x[c]);
      }
    }
  }

  const BatchNormBackward& a_;
  const detail::GradientTile& math_;
  int terms_;
  Layout layout_;
  WideCoefficients wide_;
  const float* x_;
  const float* residual_;
  const float* stored_y_;
  const float* grad_;
  const float* addend_;
  float* grad_residual_;
  float* grad_x_;
  bool needs_y_;
  Mask mask_;
  // Where the first pass leaves g as the second wants it, behind the ReLU: the residual's gradient is just
  // that. Without one the math would cost more again than the memory, and grad_x is where g is read from or
  // where the second pass writes. A bare ReLU is cheaper done again.
  float* kept_g_;
  std::vector<float> mean_g_, along_x_;
};

}  // namespace

namespace detail {

void batch_norm_tiles(const BatchNormOutput& of, const Tensor& y, const OutputTile& tile) {
  const Layout layout(of.x);
  const WideCoefficients wide(layout, of.coefficients);
  const float* const x = of.x.data<float>();
  const float* const residual = data_or_null(of.residual);
  float* const out = place_or_null(y);
  parallel_for(layout.tiles(), std::max<std::int64_t>(1, map_grain / layout.tile),
               [&](std::int64_t begin, std::int64_t end) {
                 std::vector<float> buffer(out == nullptr ? static_cast<std::size_t>(layout.tile) : 0);
                 for (std::int64_t t = begin; t < end; ++t) {
                   const std::int64_t first = t * layout.tile;
                   const std::int64_t count = std::min(layout.tile, layout.n - first);
                   float* const values = out == nullptr ? buffer.data() : out + first;
                   normalize_tile(layout, wide, of.relu, x + first,
                                  residual != nullptr ? residual + first : nullptr, count, values);
                   if (tile != nullptr) tile(values, first, count);
                 }
               });
}

void batch_norm_backward_tiles(const BatchNormBackward& arguments, const GradientTile& tile,
                               std::span<float* const> sums) {
  Backward(arguments, tile, static_cast<int>(sums.size())).run(sums);
}

}  // namespace detail

}  // namespace qtrain
