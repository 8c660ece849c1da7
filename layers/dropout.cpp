#include "layers/dropout.h"

#include <fmt/format.h>

#include "engine/core/error.h"
#include "engine/core/rng.h"
#include "engine/ops/arithmetic.h"
#include "engine/ops/cast.h"

namespace qtrain {

Dropout::Dropout(float probability) : probability_(probability), step_(add_counter("step")) {
  if (!(probability >= 0 && probability <= 1))
    throw ValueError({.where = "Dropout",
                      .what = "not a probability",
                      .got = fmt::format("{}", probability),
                      .expected = "0 to 1",
                      .hint = ""});
}

Tensor Dropout::forward(const Tensor& x) {
  if (!is_training() || probability_ == 0) return x;
  const auto step = static_cast<std::uint64_t>((*step_.data<std::int64_t>())++);
  RandomStream random(seed_, RandomPurpose::dropout, layer_, step);
  const double threshold = static_cast<double>(probability_) * 0x1p32;
  const float kept = probability_ < 1 ? 1 / (1 - probability_) : 0;
  std::vector<float> mask(static_cast<std::size_t>(x.numel()));
  for (float& m : mask) m = static_cast<double>(random.next()) < threshold ? 0 : kept;
  return multiply(x, cast(Tensor::from_values(x.shape(), mask, x.device()), x.dtype()));
}

std::string Dropout::describe() const {
  return fmt::format("{}(p {})", kind(), probability_);
}

}  // namespace qtrain
