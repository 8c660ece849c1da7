#include "engine/core/error.h"

#include <gtest/gtest.h>

namespace qtrain {
namespace {

TEST(ErrorMessage, LeavesOutEmptyParts) {
  EXPECT_STREQ(Error({"op", "broken", "1", "2", "try 2"}).what(), "[op] broken; got 1; expected 2; try 2");
  EXPECT_STREQ(Error({"op", "broken", "", "2", ""}).what(), "[op] broken; expected 2");
  EXPECT_STREQ(Error({"", "broken", "", "", ""}).what(), "broken");
}

TEST(ErrorMessage, IsOneLineWhateverItQuotes) {
  const std::string text = Error({"file", "a\nb", "\x1b[31m\tx\r\x7f", "", ""}).what();
  for (const char c : text) EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

TEST(ErrorMessage, TypesAreDistinctErrors) {
  EXPECT_THROW(throw ShapeError({"a", "b", "", "", ""}), Error);
  EXPECT_THROW(throw IoError({"a", "b", "", "", ""}), std::runtime_error);
}

TEST(NearestName, FindsTypingErrors) {
  const std::vector<std::string> names{"resnet18", "resnet34", "resnet20", "mobilenet"};
  EXPECT_EQ(nearest_name("resnet18", names), "resnet18");
  EXPECT_EQ(nearest_name("resnet-18", names), "resnet18");
  EXPECT_EQ(nearest_name("rsenet34", names), "resnet34");
  EXPECT_EQ(nearest_name("mobilnet", names), "mobilenet");
  EXPECT_EQ(nearest_name("transformer", names), "");
  EXPECT_EQ(nearest_name("", names), "");
  EXPECT_EQ(nearest_name("x", {}), "");
  EXPECT_EQ(nearest_name("resnet1", {"resnet18", "resnet10"}), "resnet18") << "of equals the first";
}

TEST(NearestName, Suggests) {
  EXPECT_EQ(suggest("satt", {"sat", "none"}), "did you mean 'sat'?");
  EXPECT_EQ(suggest("quantum", {"sat", "none"}, "see qtrain list"), "see qtrain list");
}

}  // namespace
}  // namespace qtrain
