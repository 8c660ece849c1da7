#include "engine/ops/dropout.h"

#include <cmath>

#include "engine/autograd/tape.h"
#include "engine/backend/backend.h"
#include "engine/core/philox.h"
#include "engine/core/rng.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_type.h"
#include "engine/ops/check.h"
#include "engine/ops/row_major_index.h"

namespace qtrain {
namespace {

// Four neighbours in N, C, H, W order share a block of random words.
constexpr std::int64_t words = 4;

// How the masks of one layer are drawn, without the step.
struct MaskSource {
  std::array<std::uint32_t, 2> key{};
  std::uint64_t mixed_layer = 0;
  std::uint64_t limit = 0;  // words below it drop their element
  float kept = 1;

  MaskSource() = default;
  MaskSource(const DropoutStream& stream, float probability)
      : mixed_layer(mix_bits(stream.layer)),
        limit(static_cast<std::uint64_t>(std::ceil(static_cast<double>(probability) * 0x1p32))),
        kept(probability < 1 ? 1 / (1 - probability) : 0) {
    const std::uint64_t bits =
        mix_bits(stream.seed ^ (static_cast<std::uint64_t>(RandomPurpose::dropout) << 32));
    key = {low_word(bits), high_word(bits)};
  }
};

// The counters are those of RandomStream.
template <class T>
struct Masked {
  MaskSource source;
  RowMajorIndex place;
  std::int64_t count;
  const std::int64_t* step;
  const T* in;
  T* out;
  std::array<std::uint32_t, 4> counter{};

  QTRAIN_HOST_DEVICE void prepare() {
    const auto s = static_cast<std::uint64_t>(*step);
    const std::uint64_t bits = mix_bits(source.mixed_layer + s);
    counter = {0, low_word(s), low_word(bits), high_word(bits)};
  }
  QTRAIN_HOST_DEVICE void operator()(std::int64_t block) const {
    std::array<std::uint32_t, 4> c = counter;
    c[0] = static_cast<std::uint32_t>(block);
    const std::array<std::uint32_t, 4> drawn = philox_block(c, source.key);
    for (std::int64_t j = 0; j < words && block * words + j < count; ++j) {
      const std::int64_t at = place(block * words + j);
      store(out[at], load(in[at]) * (drawn[static_cast<std::size_t>(j)] < source.limit ? 0.0F : source.kept));
    }
  }
};

void apply_mask(const MaskSource& source, const Tensor& step, const Tensor& in, const Tensor& out) {
  with_float_type(in.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(backend(in.device()).stream(), (in.numel() + words - 1) / words,
             Masked<T>{source, RowMajorIndex(in.shape()), in.numel(), step.data<std::int64_t>(), in.data<T>(),
                       out.data<T>()},
             map_grain / 16);
  });
}

struct DropoutNode final : Node {
  MaskSource source;
  SavedTensor step{"step"};
  std::string_view name() const override { return "dropout"; }
  std::vector<SavedTensor*> saved() override { return {&step}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    Tensor grad_x = Tensor::empty_like(g);
    apply_mask(source, step.get(), g, grad_x);
    return {grad_x};
  }
};

struct Increment {
  std::int64_t* value;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t /*i*/) const { ++*value; }
};

void check_step(std::string_view op, const Tensor& step) {
  check::tensor(op, "step", step, DType::i64);
  check::sizes(step.numel() == 1, op, "'step' is not one number", step.str(), "one element");
}

}  // namespace

Tensor dropout(const Tensor& x, float probability, const DropoutStream& stream, const Tensor& step) {
  check::floats("dropout", "x", x);
  check_step("dropout", step);
  check::same_device("dropout", {x, step});
  check::value(probability >= 0 && probability <= 1, "dropout", "not a probability",
               std::to_string(probability), "0 to 1");
  Tensor y = Tensor::empty_like(x);
  const MaskSource source(stream, probability);
  apply_mask(source, step, x, y);
  return Tape::record<DropoutNode>("dropout", {x}, y, [&](DropoutNode& node) {
    node.source = source;
    node.step.save(step);
  });
}

void advance_step(const Tensor& step) {
  check_step("advance_step", step);
  for_each(backend(step.device()).stream(), 1, Increment{step.data<std::int64_t>()});
  step.bump_version();
}

}  // namespace qtrain
