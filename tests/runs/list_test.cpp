// What `qtrain list` says, as text and as JSON.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/runs/child.h"

namespace qtrain::runs {
namespace {

using nlohmann::json;

TEST(List, ALayerThatAQuantizerLeavesAloneIsCalledFloat) {
  const Result text = qtrain({"list", "quantizers"});
  ASSERT_EQ(text.status, 0) << text.err;
  const Result machine = qtrain({"list", "--json", "quantizers"});
  ASSERT_EQ(machine.status, 0) << machine.err;
  const std::vector<std::string> lines = lines_of(text.out);
  std::size_t found = 0;
  const json listing = json::parse(machine.out);
  for (const json& quantizer : listing["quantizers"]) {
    const std::string heading = quantizer["name"].get<std::string>() + ":";
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const std::string& l) { return l.starts_with(heading); });
    line = std::find_if(line, lines.end(),
                        [](const std::string& l) { return l.starts_with("  first layer: "); });
    ASSERT_NE(line, lines.end()) << heading;
    for (const std::string edge : {"first", "last"}) {
      const bool says_float = line->find(edge + " layer: float") != std::string::npos;
      EXPECT_EQ(says_float, !quantizer[edge + "_layer"]["quantize"].get<bool>()) << heading << *line;
      found += says_float ? 1 : 0;
    }
  }
  EXPECT_GE(found, 4U);
}

}  // namespace
}  // namespace qtrain::runs
