#include "engine/io/safetensors_header.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "engine/core/error.h"

namespace qtrain::safetensors {
namespace {

using Json = nlohmann::json;

// Receives the JSON parser's events. The parser keeps its own stack on the heap and this handler refuses
// every level that the format doesn't have, so hostile nesting ends at its fourth bracket.
class HeaderHandler final : public Json::json_sax_t {
 public:
  explicit HeaderHandler(const std::string& file) : file_(file) {}
  Header take() { return std::move(header_); }

  bool null() override { refuse("null"); }
  bool boolean(bool /*value*/) override { refuse("a boolean"); }
  bool number_integer(number_integer_t /*value*/) override { refuse("a negative number"); }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    refuse("the number " + text.substr(0, 40));  // fractions, exponents, and integers beyond 64 bits
  }
  bool binary(binary_t& /*value*/) override { refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (value > static_cast<std::uint64_t>(INT64_MAX)) refuse(fmt::format("the size {}", value));
      header_.tensors.back().shape.push_back(static_cast<std::int64_t>(value));
    } else if (place_ == Place::offsets && offsets_seen_ < 2) {
      (offsets_seen_++ == 0 ? header_.tensors.back().begin : header_.tensors.back().end) = value;
    } else {
      refuse(fmt::format("the number {}", value));
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      header_.metadata[field_] = std::move(value);
    } else if (place_ == Place::tensor && field_ == "dtype") {
      header_.tensors.back().dtype = std::move(value);
    } else {
      refuse("a string");
    }
    return true;
  }

  bool start_object(std::size_t /*elements*/) override {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      const bool is_metadata = top_key_ == metadata_key;
      place_ = is_metadata ? Place::metadata : Place::tensor;
      field_.clear();
      fields_seen_.clear();
      if (!is_metadata) header_.tensors.push_back({.name = top_key_, .dtype = "", .shape = {}});
    } else {
      refuse("an object");
    }
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::top) {
      top_key_ = key;
      if (!names_.insert(key).second) fail(quote(key) + " appears twice", "", "every name once");
      return true;
    }
    field_ = key;
    if (!fields_seen_.insert(key).second) fail(context() + ": key appears twice", "", "every key once");
    if (place_ == Place::tensor && key != "dtype" && key != "shape" && key != "data_offsets")
      fail(context() + ": unknown key", "", "dtype, shape, data_offsets");
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      field_.clear();
      for (const char* needed : {"dtype", "shape", "data_offsets"})
        if (!fields_seen_.contains(needed)) fail(fmt::format("{}: '{}' is missing", context(), needed));
    }
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }

  bool start_array(std::size_t /*elements*/) override {
    if (place_ != Place::tensor || field_ == "dtype") refuse("an array");
    place_ = field_ == "shape" ? Place::shape : Place::offsets;
    offsets_seen_ = 0;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && offsets_seen_ != 2)
      refuse(fmt::format("{} number{}", offsets_seen_, offsets_seen_ == 1 ? "" : "s"));
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception&) override {
    fail(fmt::format("the header isn't valid JSON at byte {}",
                     length_bytes + position - (position > 0 ? 1 : 0)),
         token.empty() ? "" : "'" + token.substr(token.size() > 40 ? token.size() - 40 : 0) + "'");
  }

 private:
  enum class Place { outside, top, metadata, tensor, shape, offsets };

  [[noreturn]] void fail(std::string what, std::string got = "", std::string expected = "") const {
    throw FormatError({.where = file_,
                       .what = std::move(what),
                       .got = std::move(got),
                       .expected = std::move(expected),
                       .hint = ""});
  }

  // A value of a type that may not stand here.
  [[noreturn]] void refuse(std::string got) const {
    fail(context() + " has the wrong value", std::move(got), wanted());
  }

  std::string context() const {
    if (place_ == Place::outside) return "the header";
    const std::string owner = top_key_ == metadata_key ? top_key_ : "tensor " + quote(top_key_);
    return field_.empty() || place_ == Place::top ? owner : fmt::format("{}: {}", owner, quote(field_));
  }

  std::string wanted() const {
    switch (place_) {
      case Place::outside:
        return "a JSON object";
      case Place::top:
        return top_key_ == metadata_key ? "an object of strings" : "an object";
      case Place::metadata:
        return "a string";
      case Place::shape:
        return "sizes between 0 and 2^63-1";
      case Place::offsets:
        return "[begin, end] as non-negative integers";
      case Place::tensor:
        break;
    }
    if (field_ == "dtype") return "a string";
    return field_ == "shape" ? "an array of non-negative integers" : "[begin, end] as non-negative integers";
  }

  const std::string& file_;
  Header header_;
  Place place_ = Place::outside;
  std::string top_key_;  // the tensor or __metadata__ that is being read
  std::string field_;    // the key inside of it
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> fields_seen_;
  int offsets_seen_ = 0;
};

constexpr DTypeInfo known_dtypes[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};

}  // namespace

std::span<const DTypeInfo> dtypes() {
  return known_dtypes;
}

std::optional<std::size_t> dtype_rank(std::string_view name) {
  for (std::size_t i = 0; i < std::size(known_dtypes); ++i)
    if (known_dtypes[i].name == name) return i;
  return std::nullopt;
}

Header parse_header(std::string_view text, const std::string& file) {
  const auto fail = [&](std::string what, std::string expected = "") {
    throw FormatError(
        {.where = file, .what = std::move(what), .got = "", .expected = std::move(expected), .hint = ""});
  };
  if (const auto at = first_invalid_utf8(text))
    fail(fmt::format("the header isn't UTF-8 at byte {}", length_bytes + *at));
  // White space around the object is allowed (the reference pads for page alignment), a byte order mark
  // isn't.
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{')
    fail("the header isn't a JSON object", "'{' as its first character");
  // JSON has no raw control characters but white space; the parser would take a zero byte for the end.
  for (std::size_t i = 0; i < text.size(); ++i)
    if (static_cast<unsigned char>(text[i]) < 0x20 && std::string_view("\t\r\n").find(text[i]) == text.npos)
      fail(fmt::format("the header isn't valid JSON at byte {}: a control character", length_bytes + i));
  HeaderHandler handler(file);
  Json::sax_parse(text.begin(), text.end(), &handler);
  return handler.take();
}

std::string render_header(const Header& header) {
  // Written entry by entry, since the order of the entries matters and a JSON object of the library has its
  // own.
  std::string text = "{";
  const auto item = [&](std::string_view key, const std::string& value) {
    text += fmt::format("{}{}:{}", text.back() == '{' ? "" : ",", Json(key).dump(), value);
  };
  if (!header.metadata.empty()) item(metadata_key, Json(header.metadata).dump());
  for (const TensorClaim& t : header.tensors)
    item(t.name, fmt::format(R"({{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", t.dtype,
                             fmt::join(t.shape, ","), t.begin, t.end));
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

ByteSize byte_size(std::string_view dtype, std::span<const std::int64_t> shape) {
  const auto rank = dtype_rank(dtype);
  if (!rank) return {.problem = SizeProblem::unknown_dtype};
  std::uint64_t bits = 1;
  for (const std::int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(bits, static_cast<std::uint64_t>(size), &bits))
      return {.problem = SizeProblem::overflow};
  if (__builtin_mul_overflow(bits, std::uint64_t{known_dtypes[*rank].bits}, &bits))
    return {.problem = SizeProblem::overflow};
  if (bits % 8 != 0) return {.problem = SizeProblem::not_whole_bytes};
  return {.bytes = bits / 8};
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(i < text.size() ? text[i] : 0); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char lead = byte(i);
    const std::size_t length = lead < 0x80   ? 1
                               : lead < 0xC2 ? 0
                               : lead < 0xE0 ? 2
                               : lead < 0xF0 ? 3
                               : lead < 0xF5 ? 4
                                             : 0;
    if (length == 0) return i;
    for (std::size_t k = 1; k < length; ++k)
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    // Overlong forms, surrogates (U+D800..DFFF) and code points beyond U+10FFFF show in the second byte.
    const unsigned char second = byte(i + 1);
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
        (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F))
      return i;
    i += length;
  }
  return std::nullopt;
}

std::string quote(std::string_view name) {
  constexpr std::size_t limit = 120;
  if (name.size() <= limit) return fmt::format("'{}'", name);
  std::size_t cut = limit;
  while (cut > 0 && (static_cast<unsigned char>(name[cut]) & 0xC0) == 0x80) --cut;  // not inside a character
  return fmt::format("'{}...'", name.substr(0, cut));
}

}  // namespace qtrain::safetensors
