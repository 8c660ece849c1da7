// Inside of the safetensors reader and writer: the header's JSON and the format's dtypes and sizes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qtrain::safetensors {

inline constexpr std::uint64_t length_bytes = 8;                // the header's length, in front of everything
inline constexpr std::uint64_t max_header_bytes = 100'000'000;  // the reference's own limit
inline constexpr std::string_view metadata_key = "__metadata__";

struct DTypeInfo {
  std::string_view name;
  unsigned bits;
};

// Every dtype of the format in the reference's order, which is the order of rising alignment.
std::span<const DTypeInfo> dtypes();

// Position in dtypes(), or nothing.
std::optional<std::size_t> dtype_rank(std::string_view name);

// What one header entry claims; nothing is checked yet but JSON types.
struct TensorClaim {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // byte offsets behind the header
  std::uint64_t end = 0;
};

struct Header {
  std::vector<TensorClaim> tensors;  // in the order of the text
  std::map<std::string, std::string> metadata;
};

// Parses the JSON text strictly: UTF-8, no key twice, no unknown field, no negative or fractional number, no
// nesting beyond the format's. Throws FormatError naming `file` and the tensor.
Header parse_header(std::string_view text, const std::string& file);

// The JSON text of a header, padded with spaces so that the tensors begin at a multiple of 8.
std::string render_header(const Header& header);

// The number of bytes of a tensor, or the reason why it has none.
enum class SizeProblem : std::uint8_t { none, unknown_dtype, overflow, not_whole_bytes };
struct ByteSize {
  std::uint64_t bytes = 0;
  SizeProblem problem = SizeProblem::none;
};
ByteSize byte_size(std::string_view dtype, std::span<const std::int64_t> shape);

// The offset of the first byte that isn't well-formed UTF-8 (RFC 3629), or nothing.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

// 'name' for a message: quoted and, when long, cut.
std::string quote(std::string_view name);

}  // namespace qtrain::safetensors
