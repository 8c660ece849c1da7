#include "quant/unit_quantizer.h"

namespace qtrain::quant {

OptionSpec scheme_option(std::string default_scheme) {
  return {.name = "scheme",
          .type = OptionType::choice,
          .default_value = std::move(default_scheme),
          .help = "levels: original 0..1, modified 0..1-2^-b, centered between",
          .choices = {"original", "modified", "centered"}};
}

Scheme parse_scheme(const std::string& name) {
  return name == "original" ? Scheme::original : (name == "modified" ? Scheme::modified : Scheme::centered);
}

}  // namespace qtrain::quant
