#include "engine/io/safetensors.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <tuple>
#include <utility>

#include "engine/core/error.h"
#include "engine/io/file_descriptor.h"
#include "engine/io/safetensors_header.h"

namespace qtrain {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

using safetensors::SizeProblem;
using safetensors::TensorClaim;

[[noreturn]] void fail(const std::string& file, std::string what, std::string got = "",
                       std::string expected = "", std::string hint = "") {
  throw FormatError({file, std::move(what), std::move(got), std::move(expected), std::move(hint)});
}

// The bytes of the header's text, after checking the length in front of it.
std::span<const std::byte> header_text(std::span<const std::byte> file, const std::string& name) {
  using safetensors::length_bytes;
  using safetensors::max_header_bytes;
  if (file.size() < length_bytes)
    fail(name, "too short for a safetensors file", fmt::format("{} bytes", file.size()), "at least 8 bytes");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > max_header_bytes)
    fail(name, "header length too large", fmt::format("{} bytes", length),
         fmt::format("at most {}", max_header_bytes), "is this a safetensors file?");
  if (length > file.size() - length_bytes)
    fail(name, "header runs past the end of the file", fmt::format("a header of {} bytes", length),
         fmt::format("at most {}", file.size() - length_bytes), "the file may be truncated");
  return file.subspan(length_bytes, length);
}

// Checks that a claim's dtype, shape and offsets agree.
void check_size(const TensorClaim& claim, const std::string& file) {
  const std::string tensor = "tensor " + safetensors::quote(claim.name);
  const std::string kind = fmt::format("{}[{}]", claim.dtype.substr(0, 40), fmt::join(claim.shape, ", "));
  const safetensors::ByteSize size = safetensors::byte_size(claim.dtype, claim.shape);
  switch (size.problem) {
    case SizeProblem::unknown_dtype: {
      std::vector<std::string> known;
      for (const safetensors::DTypeInfo& info : safetensors::dtypes()) known.emplace_back(info.name);
      const std::string all = fmt::format("one of {}", fmt::join(known, " "));
      fail(file, tensor + ": unknown dtype", safetensors::quote(claim.dtype), all,
           suggest(claim.dtype, known));
    }
    case SizeProblem::overflow:
      fail(file, tensor + ": its size overflows", kind);
    case SizeProblem::not_whole_bytes:
      fail(file, tensor + ": its bits don't fill whole bytes", kind);
    case SizeProblem::none:
      break;
  }
  if (claim.end - claim.begin != size.bytes)
    fail(file, tensor + ": offsets don't fit dtype and shape",
         fmt::format("{} bytes", claim.end - claim.begin), fmt::format("{} bytes for {}", size.bytes, kind));
}

// Checks that the sorted claims tile the data without hole or overlap, to its last byte.
void check_layout(std::span<const TensorClaim> sorted, std::uint64_t data_bytes, const std::string& file) {
  std::uint64_t position = 0;
  for (const TensorClaim& claim : sorted) {
    const std::string tensor = "tensor " + safetensors::quote(claim.name);
    const std::string range = fmt::format("[{}, {}]", claim.begin, claim.end);
    if (claim.begin > claim.end) fail(file, tensor + ": begins after its end", range);
    if (claim.begin != position)
      fail(file, tensor + (claim.begin > position ? ": a hole before it" : ": overlaps another tensor"),
           range, fmt::format("begin {}", position));
    check_size(claim, file);
    if (claim.end > data_bytes)
      fail(file, tensor + ": runs past the end of the file", range, fmt::format("at most {}", data_bytes),
           "the file may be truncated");
    position = claim.end;
  }
  if (position != data_bytes)
    fail(file, "bytes after the last tensor", fmt::format("{} bytes of data", data_bytes),
         fmt::format("{}", position));
}

}  // namespace

SafetensorsFile::SafetensorsFile(std::string name, std::shared_ptr<const void> owner,
                                 std::span<const std::byte> file)
    : name_(std::move(name)), owner_(std::move(owner)) {
  const std::span<const std::byte> text = header_text(file, name_);
  std::string json(text.size(), '\0');
  if (!text.empty()) std::memcpy(json.data(), text.data(), text.size());
  safetensors::Header header = safetensors::parse_header(json, name_);
  metadata_ = std::move(header.metadata);
  const std::span<const std::byte> data = file.subspan(safetensors::length_bytes + text.size());
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorClaim& a, const TensorClaim& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_layout(header.tensors, data.size(), name_);
  entries_.reserve(header.tensors.size());
  for (TensorClaim& claim : header.tensors)
    entries_.push_back({std::move(claim.name), std::move(claim.dtype), std::move(claim.shape),
                        data.subspan(claim.begin, claim.end - claim.begin)});
  by_name_.resize(entries_.size());
  std::iota(by_name_.begin(), by_name_.end(), std::size_t{0});
  std::sort(by_name_.begin(), by_name_.end(),
            [&](std::size_t a, std::size_t b) { return entries_[a].name < entries_[b].name; });
}

SafetensorsFile SafetensorsFile::parse(std::vector<std::byte> bytes, std::string name) {
  const auto buffer = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return {std::move(name), buffer, *buffer};
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const OpenedFile file = open_regular_file(path);
  const auto size = static_cast<std::size_t>(file.size);
  if (size == 0) return parse({}, path.string());  // an empty mapping doesn't exist
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor.get(), 0);
  if (address == MAP_FAILED) throw_io_error(path, "can't map the file into memory", errno);
  std::shared_ptr<const void> mapping(address, [address, size](const void*) { ::munmap(address, size); });
  return {path.string(), std::move(mapping), {static_cast<const std::byte*>(address), size}};
}

const TensorEntry* SafetensorsFile::find(std::string_view tensor) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), tensor,
                       [&](std::size_t i, std::string_view name) { return entries_[i].name < name; });
  return found != by_name_.end() && entries_[*found].name == tensor ? &entries_[*found] : nullptr;
}

const TensorEntry& SafetensorsFile::at(std::string_view tensor) const {
  if (const TensorEntry* entry = find(tensor)) return *entry;
  std::vector<std::string> names;
  for (const TensorEntry& entry : entries_) names.push_back(entry.name);
  fail(name_, fmt::format("no tensor {}", safetensors::quote(tensor)), "", "", suggest(tensor, names));
}

std::optional<unsigned> safetensors_bits(std::string_view dtype) {
  const auto rank = safetensors::dtype_rank(dtype);
  return rank ? std::optional(safetensors::dtypes()[*rank].bits) : std::nullopt;
}

}  // namespace qtrain
