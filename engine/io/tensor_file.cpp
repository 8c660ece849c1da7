#include "engine/io/tensor_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/core/error.h"
#include "engine/core/host_read.h"

namespace qtrain {
namespace {

std::optional<DType> dtype_from(std::string_view name) {
  for (const DType dtype :
       {DType::f32, DType::f64, DType::bf16, DType::i8, DType::u8, DType::i16, DType::i32, DType::i64})
    if (safetensors_dtype(dtype) == name) return dtype;
  if (name == "BOOL") return DType::u8;
  if (name == "F16") return DType::f32;
  return std::nullopt;
}

// [rows, columns] -> [columns, rows], in tiles that stay in the cache. memcpy, since files don't align
// elements.
template <std::size_t element>
void transpose(const std::byte* from, std::byte* to, std::size_t rows, std::size_t columns) {
  constexpr std::size_t tile = 32;
  for (std::size_t r0 = 0; r0 < rows; r0 += tile)
    for (std::size_t c0 = 0; c0 < columns; c0 += tile)
      for (std::size_t c = c0; c < std::min(columns, c0 + tile); ++c)
        for (std::size_t r = r0; r < std::min(rows, r0 + tile); ++r)
          std::memcpy(to + (c * rows + r) * element, from + (r * columns + c) * element, element);
}

enum class Direction { to_channels_last, from_channels_last };

// Rearranges a 4-D tensor's elements between N, C, H, W and N, H, W, C; other ranks are copied.
void permute(const std::byte* from, std::byte* to, const Shape& shape, std::size_t element,
             Direction direction) {
  const std::size_t total = static_cast<std::size_t>(shape.numel()) * element;
  if (total == 0) return;
  if (shape.rank() != 4) {
    std::memcpy(to, from, total);
    return;
  }
  auto rows = static_cast<std::size_t>(shape[1]);
  auto columns = static_cast<std::size_t>(shape[2] * shape[3]);
  if (direction == Direction::from_channels_last) std::swap(rows, columns);
  const auto run = element == 1   ? transpose<1>
                   : element == 2 ? transpose<2>
                   : element == 4 ? transpose<4>
                                  : transpose<8>;
  const std::size_t image = rows * columns * element;
  for (std::size_t n = 0; n < total / image; ++n) run(from + n * image, to + n * image, rows, columns);
}

// IEEE half to single, exact: sign, 5 exponent bits (bias 15), 10 fraction bits.
float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t fraction = half & 0x3FFU;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1.0p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t biased = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | biased << 23 | fraction << 13);
}

std::vector<std::byte> widen_halves(std::span<const std::byte> halves) {
  std::vector<std::byte> floats(halves.size() * 2);
  for (std::size_t i = 0; i < halves.size() / 2; ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, halves.data() + 2 * i, sizeof half);
    const float value = half_to_float(half);
    std::memcpy(floats.data() + 4 * i, &value, sizeof value);
  }
  return floats;
}

// True when any element has all exponent bits set.
template <class Bits>
bool any_non_finite(std::span<const std::byte> bytes, Bits exponent_mask) {
  for (std::size_t i = 0; i + sizeof(Bits) <= bytes.size(); i += sizeof(Bits)) {
    Bits bits = 0;
    std::memcpy(&bits, bytes.data() + i, sizeof bits);
    if ((bits & exponent_mask) == exponent_mask) return true;
  }
  return false;
}

std::vector<std::byte> storage_bytes(const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.bytes());
  if (!bytes.empty()) host_read(tensor, bytes.data());
  return bytes;
}

}  // namespace

std::string_view safetensors_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f64:
      return "F64";
    case DType::bf16:
      return "BF16";
    case DType::i8:
      return "I8";
    case DType::u8:
      return "U8";
    case DType::i16:
      return "I16";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
  }
  return "";
}

Tensor to_tensor(const TensorEntry& entry, const std::string& file) {
  const std::string where = file.empty() ? "safetensors" : file;
  const std::optional<DType> dtype = dtype_from(entry.dtype);
  if (!dtype)
    throw DTypeError({.where = where,
                      .what = fmt::format("tensor '{}': element type can't be loaded", entry.name),
                      .got = entry.dtype,
                      .expected = "F32 F64 F16 BF16 I8 U8 I16 I32 I64 or BOOL",
                      .hint = "convert the tensor first"});
  if (entry.shape.size() > Shape::max_rank)
    throw ShapeError({.where = where,
                      .what = fmt::format("tensor '{}' has too many dimensions", entry.name),
                      .got = std::to_string(entry.shape.size()),
                      .expected = fmt::format("at most {}", Shape::max_rank),
                      .hint = ""});
  const Shape shape{std::span<const std::int64_t>(entry.shape)};
  Tensor tensor = Tensor::empty(shape, *dtype);
  const std::vector<std::byte> widened =
      entry.dtype == "F16" ? widen_halves(entry.bytes) : std::vector<std::byte>();
  const std::byte* source = entry.dtype == "F16" ? widened.data() : entry.bytes.data();
  permute(source, static_cast<std::byte*>(tensor.raw()), shape, size_of(*dtype), Direction::to_channels_last);
  return tensor;
}

TensorMap to_tensors(const std::vector<TensorEntry>& entries, const std::string& file) {
  TensorMap tensors;
  for (const TensorEntry& entry : entries) tensors.emplace(entry.name, to_tensor(entry, file));
  return tensors;
}

TensorMap load_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  return to_tensors(file.entries(), file.name());
}

HostTensors::HostTensors(const TensorMap& tensors) {
  copies_.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) add(name, tensor);
}

HostTensors::HostTensors(const NamedTensors& tensors) {
  copies_.reserve(tensors.size());
  for (const NamedTensor& named : tensors) add(named.name, named.tensor);
}

void HostTensors::add(const std::string& name, const Tensor& tensor) {
  if (!tensor.defined())
    throw ValueError({.where = "save tensors",
                      .what = fmt::format("tensor '{}' is undefined", name),
                      .got = "no tensor",
                      .expected = "",
                      .hint = ""});
  std::vector<std::byte> bytes = storage_bytes(tensor);
  if (tensor.rank() == 4) {
    std::vector<std::byte> ordered(bytes.size());
    permute(bytes.data(), ordered.data(), tensor.shape(), size_of(tensor.dtype()),
            Direction::from_channels_last);
    bytes = std::move(ordered);
  }
  copies_.push_back({name, tensor.dtype(), tensor.shape(), std::move(bytes)});
}

std::vector<TensorToWrite> HostTensors::list() const {
  std::vector<TensorToWrite> list;
  list.reserve(copies_.size());
  for (const Copy& copy : copies_) {
    const auto dims = copy.shape.dims();
    list.push_back(
        {copy.name, std::string(safetensors_dtype(copy.dtype)), {dims.begin(), dims.end()}, copy.bytes});
  }
  return list;
}

void save_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                  const std::map<std::string, std::string>& metadata) {
  const HostTensors host(tensors);
  write_safetensors(path, host.list(), metadata);
}

std::vector<std::string> non_finite_tensors(const TensorMap& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined()) continue;
    const DType dtype = tensor.dtype();
    if (dtype != DType::f32 && dtype != DType::f64 && dtype != DType::bf16) continue;
    const std::vector<std::byte> bytes = storage_bytes(tensor);
    const bool found = dtype == DType::f32   ? any_non_finite<std::uint32_t>(bytes, 0x7F800000U)
                       : dtype == DType::f64 ? any_non_finite<std::uint64_t>(bytes, 0x7FF0000000000000U)
                                             : any_non_finite<std::uint16_t>(bytes, 0x7F80U);
    if (found) names.push_back(name);
  }
  return names;
}

}  // namespace qtrain
