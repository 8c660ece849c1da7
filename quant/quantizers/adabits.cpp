// adabits: one set of weights for several bit-widths (Jin, Yang, Liao 2020, arXiv:1912.09666; code
// deJQK/AdaBits). The mathematics is sat's (sat_weight.cpp, sat_activation.cpp): weights of every width come
// from the same float weights. What each width has for itself is its clipping level:
//   alpha = (alpha_1, ..., alpha_n), one for each of the n widths of bits_list; alpha_k serves inputs of the
//   k-th width, and dL/dalpha of all others is 0
// and its batch norm (switchable_batch_norm.h).
#include "quant/bits_list.h"
#include "quant/fake_quantize.h"
#include "quant/quantizers/sat.h"
#include "quant/quantizers/sat_activation.h"
#include "quant/quantizers/sat_weight.h"
#include "quant/registry.h"

namespace qtrain::quant {
namespace {

struct Copy {
  QTRAIN_HOST_DEVICE float operator()(float v) const { return v; }
};

// y = v[index]; the gradient of the other elements is 0.
struct EntryNode final : Node {
  Shape shape;
  std::int64_t index = 0;
  std::string_view name() const override { return "entry"; }
  std::vector<SavedTensor*> saved() override { return {}; }
  std::vector<Tensor> backward(std::span<const Tensor> grad_outputs) override {
    const Tensor& g = grad_outputs[0];
    const Tensor grad = Tensor::zeros(shape, DType::f32, g.device());
    map(backend(g.device()).stream(), 1, Copy{}, grad.data<float>() + index, g.data<float>());
    return {grad};
  }
};

Tensor entry(const Tensor& v, std::size_t index) {
  const auto place = static_cast<std::int64_t>(index);
  const Tensor y = Tensor::empty({1}, DType::f32, v.device());
  map(backend(v.device()).stream(), 1, Copy{}, y.data<float>(), v.data<float>() + place);
  return Tape::record<EntryNode>("entry", {v}, y, [&](EntryNode& node) {
    node.shape = v.shape();
    node.index = place;
  });
}

BitsList read_list(const Options& options) {
  std::vector<int> widths;
  for (const std::int64_t bits : options.integers("bits_list"))
    widths.push_back(bits >= 1 && bits <= float_bits ? static_cast<int>(bits) : 0);  // 0 is refused
  const bool first = options.choice("outside_list") == "first" || !options.flag("switch_alpha");
  return {"adabits", std::move(widths), first ? OutsideList::first : OutsideList::refuse};
}

class AdabitsActivation final : public SatActivation {
 public:
  explicit AdabitsActivation(const QuantizerSpec& spec) : AdabitsActivation(spec, read_list(spec.options)) {}

  std::string kind() const override { return "AdabitsActivation"; }
  std::string describe() const override { return "adabits activation, " + std::to_string(bits()) + " bits"; }

  void set_bits(int bits) override {
    if (bits >= 1) list_.entry_of(bits);
    SatActivation::set_bits(bits);
  }

 private:
  AdabitsActivation(const QuantizerSpec& spec, const BitsList& list)
      : SatActivation(spec, spec.options.flag("switch_alpha") ? static_cast<std::int64_t>(list.size()) : 1),
        list_(list) {
    list_.entry_of(spec.bits);
  }

  Tensor alpha_in_use() const override {
    return alpha().numel() == 1 ? alpha() : entry(alpha(), list_.entry_of(bits()));
  }

  BitsList list_;
};

std::vector<OptionSpec> activation_options() {
  std::vector<OptionSpec> options = sat_activation_options();
  options.push_back({.name = "bits_list",
                     .type = OptionType::integers,
                     .default_value = "8,6,5,4",
                     .help = "the bit-widths that the network is trained for",
                     .choices = {}});
  options.push_back({.name = "switch_alpha",
                     .type = OptionType::boolean,
                     .default_value = "true",
                     .help = "a clipping level for each of them; off: one for all",
                     .choices = {}});
  options.push_back({.name = "outside_list",
                     .type = OptionType::choice,
                     .default_value = "refuse",
                     .help = "other widths are refused, or use the first clipping level",
                     .choices = {"refuse", "first"}});
  return options;
}

QuantizerInfo adabits_info() {
  QuantizerInfo info = sat_info();
  info.name = "adabits";
  info.summary = "sat with a clipping level for each of several bit-widths that share the weights";
  info.source = "Jin, Yang, Liao 2020, arXiv:1912.09666; github deJQK/AdaBits";
  info.activation_options = activation_options();
  info.make = [](const QuantizerSpec& spec) -> std::shared_ptr<Quantizer> {
    if (spec.role == Role::weight) return make_sat_weight(spec);
    return std::make_shared<AdabitsActivation>(spec);
  };
  return info;
}

const Registration registration{adabits_info()};

}  // namespace
}  // namespace qtrain::quant
