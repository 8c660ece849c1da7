// Every rule of the format, broken one at a time: each must be a FormatError that names file, tensor and
// mistake.
#include <gtest/gtest.h>

#include "engine/core/error.h"
#include "engine/io/safetensors.h"
#include "tests/io/io_test_support.h"

namespace qtrain {
namespace {

using testing::bytes_of;
using testing::message_of;
using testing::raw_file;

struct Defect {
  const char* name;
  std::vector<std::byte> file;
  std::vector<std::string> expected;  // parts of the message
};

std::string tensor(std::string_view name, std::string_view dtype, std::string_view shape,
                   std::string_view offsets) {
  return "\"" + std::string(name) + R"(":{"dtype":")" + std::string(dtype) + R"(","shape":)" +
         std::string(shape) + R"(,"data_offsets":)" + std::string(offsets) + "}";
}

std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return "{" + tensor("w", dtype, shape, offsets) + "}";
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

std::vector<Defect> framing_defects() {
  const std::string good = one("F32", "[2]", "[0,8]");
  return {
      {"Empty", {}, {"too short", "0 bytes"}},
      {"SevenBytes", bytes_of("1234567"), {"too short", "7 bytes", "at least 8"}},
      {"HeaderTooLarge", raw_file(good, 8, 100'000'001), {"header length too large", "100000001"}},
      {"TextFile",
       bytes_of("These are words and no tensors.\n"),
       {"header length too large", "is this a safetensors"}},
      {"HeaderLengthWraps", raw_file(good, 8, UINT64_MAX - 3), {"header length too large"}},
      {"HeaderBeyondFile", raw_file(good, 0, good.size() + 1), {"past the end", "truncated"}},
      {"NoHeader", raw_file("", 0), {"isn't a JSON object"}},
      {"DataMissing", raw_file(good, 0), {"'w'", "past the end", "truncated"}},
      {"DataTruncated", raw_file(good, 7), {"'w'", "past the end", "truncated"}},
      {"TrailingBytes", raw_file(good, 9), {"bytes after the last tensor", "9", "8"}},
      {"BytesWithoutTensors", raw_file("{}", 1), {"bytes after the last tensor"}},
  };
}

std::vector<Defect> text_defects() {
  const std::string good = one("F32", "[2]", "[0,8]");
  return {
      {"NotUtf8", raw_file("{\"\xFF\":1}", 0), {"isn't UTF-8 at byte 10"}},
      {"OverlongUtf8", raw_file("{\"\xC0\xAF\":1}", 0), {"isn't UTF-8"}},
      {"SurrogateUtf8", raw_file("{\"\xED\xA0\x80\":1}", 0), {"isn't UTF-8"}},
      {"CutUtf8", raw_file("{\"\xE2\x82\":1}", 0), {"isn't UTF-8"}},
      {"BeyondUnicode", raw_file("{\"\xF4\x90\x80\x80\":1}", 0), {"isn't UTF-8"}},
      {"ByteOrderMark", raw_file("\xEF\xBB\xBF" + good, 8), {"isn't a JSON object"}},
      {"LoneSurrogateEscape", raw_file(R"({"\ud800":1})", 0), {"isn't valid JSON"}},
      {"NotJson", raw_file("{nonsense}", 0), {"isn't valid JSON at byte"}},
      {"CutJson", raw_file(good.substr(0, good.size() - 1), 8), {"isn't valid JSON"}},
      {"SecondValue", raw_file(good + "{}", 8), {"isn't valid JSON"}},
      {"TextBehindZeroByte", raw_file(good + std::string("\0hidden", 7), 8), {"control character"}},
      {"ZeroPadding", raw_file(good + std::string(3, '\0'), 8), {"control character"}},
      {"Comment", raw_file("{/*x*/}", 0), {"isn't valid JSON"}},
      {"TrailingComma", raw_file("{" + tensor("w", "F32", "[2]", "[0,8]") + ",}", 8), {"isn't valid JSON"}},
      {"TopIsArray", raw_file("[1]", 0), {"isn't a JSON object"}},
      {"TopIsNumber", raw_file("12", 0), {"isn't a JSON object"}},
      {"DeepArrays", raw_file(R"({"w":)" + repeated("[", 1'000'000), 0), {"'w'", "an array"}},
      {"DeepObjects", raw_file(repeated(R"({"w":)", 1'000'000), 0), {"'w'", "unknown key"}},
      {"DeepShape", raw_file(R"({"w":{"shape":)" + repeated("[", 1'000'000), 0), {"'shape'", "an array"}},
  };
}

std::vector<Defect> type_defects() {
  return {
      {"TensorIsNumber", raw_file(R"({"w":3})", 0), {"'w'", "the number 3", "an object"}},
      {"TensorIsNull", raw_file(R"({"w":null})", 0), {"'w'", "null"}},
      {"UnknownDType",
       raw_file(one("F33", "[2]", "[0,8]"), 8),
       {"'w'", "unknown dtype", "'F33'", "did you mean 'F32'"}},
      {"LowerCaseDType", raw_file(one("f32", "[2]", "[0,8]"), 8), {"unknown dtype"}},
      {"DTypeIsNumber",
       raw_file(R"({"w":{"dtype":1,"shape":[],"data_offsets":[0,4]}})", 4),
       {"'dtype'", "a string"}},
      {"DTypeIsArray",
       raw_file(R"({"w":{"dtype":["F32"],"shape":[],"data_offsets":[0,4]}})", 4),
       {"'dtype'", "an array"}},
      {"ShapeIsNumber", raw_file(one("F32", "2", "[0,8]"), 8), {"'shape'", "the number 2"}},
      {"ShapeHoldsString", raw_file(one("F32", "[\"2\"]", "[0,8]"), 8), {"'shape'", "a string"}},
      {"ShapeHoldsBoolean", raw_file(one("F32", "[true]", "[0,8]"), 8), {"'shape'", "a boolean"}},
      {"NegativeSize", raw_file(one("F32", "[-2]", "[0,8]"), 8), {"'shape'", "negative"}},
      {"FractionalSize", raw_file(one("F32", "[2.0]", "[0,8]"), 8), {"'shape'", "2.0"}},
      {"ExponentSize", raw_file(one("F32", "[2e0]", "[0,8]"), 8), {"'shape'", "2e0"}},
      {"SizeBeyond64Bits",
       raw_file(one("F32", "[18446744073709551616]", "[0,8]"), 8),
       {"'shape'", "18446744073709551616"}},
      {"SizeBeyond63Bits", raw_file(one("F32", "[9223372036854775808]", "[0,8]"), 8), {"'shape'", "2^63-1"}},
      {"NegativeOffset", raw_file(one("F32", "[2]", "[-1,8]"), 8), {"'data_offsets'", "negative"}},
      {"FractionalOffset", raw_file(one("F32", "[2]", "[0,8.5]"), 8), {"'data_offsets'", "8.5"}},
      {"OneOffset", raw_file(one("F32", "[2]", "[8]"), 8), {"'data_offsets'", "1 number"}},
      {"NoOffsets", raw_file(one("F32", "[2]", "[]"), 8), {"'data_offsets'", "0 numbers"}},
      {"ThreeOffsets", raw_file(one("F32", "[2]", "[0,4,8]"), 8), {"'data_offsets'", "the number 8"}},
      {"DTypeMissing",
       raw_file(R"({"w":{"shape":[],"data_offsets":[0,4]}})", 4),
       {"'w'", "'dtype' is missing"}},
      {"ShapeMissing", raw_file(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4), {"'shape' is missing"}},
      {"OffsetsMissing", raw_file(R"({"w":{"dtype":"F32","shape":[]}})", 4), {"'data_offsets' is missing"}},
      {"UnknownField", raw_file(R"({"w":{"stride":[1]}})", 0), {"'w'", "'stride'", "unknown key"}},
      {"MetadataIsString",
       raw_file(R"({"__metadata__":"x"})", 0),
       {"__metadata__", "a string", "object of strings"}},
      {"MetadataIsNull", raw_file(R"({"__metadata__":null})", 0), {"__metadata__", "null"}},
      {"MetadataHoldsNumber",
       raw_file(R"({"__metadata__":{"epoch":3}})", 0),
       {"__metadata__", "'epoch'", "the number 3"}},
      {"MetadataHoldsObject",
       raw_file(R"({"__metadata__":{"a":{}}})", 0),
       {"__metadata__", "'a'", "an object"}},
      {"DuplicateTensor",
       raw_file("{" + tensor("w", "F32", "[1]", "[0,4]") + "," + tensor("w", "F32", "[1]", "[0,4]") + "}", 4),
       {"'w' appears twice"}},
      {"DuplicateTensorEscaped",
       raw_file(
           "{" + tensor("w", "F32", "[1]", "[0,4]") + "," + tensor("\\u0077", "F32", "[1]", "[4,8]") + "}",
           8),
       {"'w' appears twice"}},
      {"DuplicateField",
       raw_file(R"({"w":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,8]}})", 8),
       {"'w'", "'shape'", "key appears twice"}},
      {"DuplicateMetadata",
       raw_file(R"({"__metadata__":{},"__metadata__":{}})", 0),
       {"'__metadata__' appears twice"}},
      {"DuplicateMetadataKey",
       raw_file(R"({"__metadata__":{"a":"1","a":"2"}})", 0),
       {"__metadata__", "'a'", "key appears twice"}},
  };
}

std::vector<Defect> layout_defects() {
  const auto two = [](std::string_view a, std::string_view b) {
    return "{" + tensor("a", "U8", "[4]", a) + "," + tensor("b", "U8", "[4]", b) + "}";
  };
  return {
      {"BeginAfterEnd", raw_file(one("F32", "[2]", "[8,0]"), 8), {"'w'", "begins after its end", "[8, 0]"}},
      {"HoleInFront", raw_file(one("U8", "[4]", "[2,6]"), 6), {"'w'", "a hole before it", "begin 0"}},
      {"HoleBetween", raw_file(two("[0,4]", "[5,9]"), 9), {"'b'", "a hole before it", "begin 4"}},
      {"Overlap", raw_file(two("[0,4]", "[3,7]"), 7), {"'b'", "overlaps", "begin 4"}},
      {"SameRangeTwice", raw_file(two("[0,4]", "[0,4]"), 4), {"'b'", "overlaps"}},
      {"NumelOverflows",
       raw_file(one("U8", "[4294967296,4294967296]", "[0,0]"), 0),
       {"'w'", "size overflows"}},
      {"NumelOverflowsBeforeZero",
       raw_file(one("U8", "[4294967296,4294967296,0]", "[0,0]"), 0),
       {"size overflows"}},
      {"BitsOverflow", raw_file(one("F64", "[1152921504606846976]", "[0,0]"), 0), {"size overflows"}},
      {"TooFewBytes",
       raw_file(one("F32", "[3]", "[0,8]"), 8),
       {"'w'", "don't fit", "8 bytes", "12 bytes for F32[3]"}},
      {"TooManyBytes", raw_file(one("F32", "[1]", "[0,8]"), 8), {"'w'", "don't fit", "4 bytes for F32[1]"}},
      {"EmptyWithBytes", raw_file(one("F32", "[0]", "[0,4]"), 4), {"'w'", "don't fit"}},
      {"HalfByte", raw_file(one("F4", "[3]", "[0,2]"), 2), {"'w'", "whole bytes", "F4[3]"}},
      {"SixBits", raw_file(one("F6_E2M3", "[2]", "[0,2]"), 2), {"'w'", "whole bytes"}},
      {"OffsetsBeyond63Bits",
       raw_file(one("U8", "[1]", "[18446744073709551615,18446744073709551615]"), 1),
       {"a hole"}},
  };
}

class SafetensorsDefect : public ::testing::TestWithParam<Defect> {};

TEST_P(SafetensorsDefect, IsRefusedByName) {
  const std::string message =
      message_of<FormatError>([&] { SafetensorsFile::parse(GetParam().file, "bad.safetensors"); });
  EXPECT_TRUE(message.starts_with("[bad.safetensors] ")) << message;
  for (const std::string& part : GetParam().expected)
    EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_LT(message.size(), 600U);
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

std::string name_of_defect(const ::testing::TestParamInfo<Defect>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Framing, SafetensorsDefect, ::testing::ValuesIn(framing_defects()), name_of_defect);
INSTANTIATE_TEST_SUITE_P(Text, SafetensorsDefect, ::testing::ValuesIn(text_defects()), name_of_defect);
INSTANTIATE_TEST_SUITE_P(Types, SafetensorsDefect, ::testing::ValuesIn(type_defects()), name_of_defect);
INSTANTIATE_TEST_SUITE_P(Layout, SafetensorsDefect, ::testing::ValuesIn(layout_defects()), name_of_defect);

TEST(SafetensorsAccepts, EmptyFile) {
  const SafetensorsFile file = SafetensorsFile::parse(raw_file("{}", 0), "x");
  EXPECT_TRUE(file.entries().empty());
  EXPECT_TRUE(file.metadata().empty());
}

TEST(SafetensorsAccepts, WhiteSpaceAroundTheHeader) {
  const SafetensorsFile file =
      SafetensorsFile::parse(raw_file(" \n\t\r" + one("F32", " [ 2 ] ", "[0,8]") + " \r\n\t ", 8), "x");
  EXPECT_EQ(file.at("w").shape, std::vector<std::int64_t>{2});
}

TEST(SafetensorsAccepts, EmptyTensorsAndScalars) {
  const std::string header = "{" + tensor("e2", "F32", "[0,5]", "[4,4]") + "," +
                             tensor("s", "F32", "[]", "[0,4]") + "," + tensor("e1", "I64", "[3,0]", "[0,0]") +
                             "," + tensor("e3", "F4", "[0]", "[4,4]") + "}";
  const SafetensorsFile file = SafetensorsFile::parse(raw_file(header, 4), "x");
  ASSERT_EQ(file.entries().size(), 4U);
  EXPECT_TRUE(file.at("e1").bytes.empty());
  EXPECT_TRUE(file.at("e2").bytes.empty());
  EXPECT_EQ(file.at("s").bytes.size(), 4U);
  EXPECT_TRUE(file.at("s").shape.empty());
}

TEST(SafetensorsAccepts, AnyOrderOfKeysAndFields) {
  const SafetensorsFile file = SafetensorsFile::parse(
      raw_file(R"({"z":{"data_offsets":[1,2],"shape":[1],"dtype":"U8"},"__metadata__":{"k":"v"},)"
               R"("a":{"shape":[1],"dtype":"I8","data_offsets":[0,1]}})",
               2),
      "x");
  EXPECT_EQ(file.entries()[0].name, "a");
  EXPECT_EQ(file.entries()[1].name, "z");
  EXPECT_EQ(file.metadata().at("k"), "v");
}

TEST(SafetensorsAccepts, UnusualNames) {
  const std::string header = "{" + tensor("", "U8", "[1]", "[0,1]") + "," +
                             tensor("\xC3\xA9\xE6\x97\xA5", "U8", "[1]", "[1,2]") + "," +
                             tensor("\\u00e9\\ud83d\\ude00", "U8", "[1]", "[2,3]") + "}";
  const SafetensorsFile file = SafetensorsFile::parse(raw_file(header, 3), "x");
  EXPECT_NE(file.find(""), nullptr);
  EXPECT_NE(file.find("\xC3\xA9\xE6\x97\xA5"), nullptr);
  EXPECT_NE(file.find("\xC3\xA9\xF0\x9F\x98\x80"), nullptr);
}

TEST(SafetensorsAccepts, EveryDTypeAtItsSize) {
  const std::pair<const char*, unsigned> dtypes[] = {
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
      {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
  for (const auto& [dtype, bits] : dtypes) {
    EXPECT_EQ(safetensors_bits(dtype), bits) << dtype;
    const std::string offsets = "[0," + std::to_string(bits) + "]";  // 8 elements
    const SafetensorsFile file = SafetensorsFile::parse(raw_file(one(dtype, "[2,4]", offsets), bits), "x");
    EXPECT_EQ(file.at("w").dtype, dtype);
  }
  EXPECT_FALSE(safetensors_bits("F128").has_value());
}

TEST(SafetensorsFileTest, MissingTensorSuggestsANeighbour) {
  const SafetensorsFile file =
      SafetensorsFile::parse(raw_file("{" + tensor("fc.weight", "U8", "[1]", "[0,1]") + "}", 1), "x");
  EXPECT_EQ(file.find("fc.weigth"), nullptr);
  const std::string message = message_of<FormatError>([&] { static_cast<void>(file.at("fc.weigth")); });
  EXPECT_NE(message.find("did you mean 'fc.weight'?"), std::string::npos) << message;
}

}  // namespace
}  // namespace qtrain
