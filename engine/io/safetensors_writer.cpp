#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "engine/core/error.h"
#include "engine/io/atomic_file.h"
#include "engine/io/safetensors.h"
#include "engine/io/safetensors_header.h"

namespace qtrain {
namespace {

using safetensors::SizeProblem;

// Whatever is wrong with a tensor that is to be written is the caller's mistake.
[[noreturn]] void refuse(const std::string& file, std::string what, std::string got = "",
                         std::string expected = "") {
  throw ValueError({file, std::move(what), std::move(got), std::move(expected), ""});
}

void check_text(const std::string& text, const std::string& file, const char* what) {
  if (const auto at = safetensors::first_invalid_utf8(text))
    refuse(file, fmt::format("{} isn't UTF-8 at byte {}", what, *at));
}

void check_tensor(const TensorToWrite& tensor, const std::string& file) {
  check_text(tensor.name, file, "a tensor's name");
  const std::string name = "tensor " + safetensors::quote(tensor.name);
  if (tensor.name == safetensors::metadata_key) refuse(file, name + ": the name is reserved by the format");
  const std::string kind = fmt::format("{}[{}]", tensor.dtype, fmt::join(tensor.shape, ", "));
  const safetensors::ByteSize size = safetensors::byte_size(tensor.dtype, tensor.shape);
  switch (size.problem) {
    case SizeProblem::unknown_dtype:
      refuse(file, name + ": unknown dtype", safetensors::quote(tensor.dtype));
    case SizeProblem::overflow:
      refuse(file, name + ": a negative or overflowing size", kind);
    case SizeProblem::not_whole_bytes:
      refuse(file, name + ": its bits don't fill whole bytes", kind);
    case SizeProblem::none:
      break;
  }
  if (size.bytes != tensor.bytes.size())
    refuse(file, name + ": bytes don't fit dtype and shape", fmt::format("{} bytes", tensor.bytes.size()),
           fmt::format("{} bytes for {}", size.bytes, kind));
}

void check_input(const std::vector<TensorToWrite>& tensors,
                 const std::map<std::string, std::string>& metadata, const std::string& file) {
  std::vector<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    check_tensor(tensor, file);
    names.emplace_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  const auto repeated = std::adjacent_find(names.begin(), names.end());
  if (repeated != names.end())
    refuse(file, fmt::format("tensor {} given twice", safetensors::quote(*repeated)));
  for (const auto& [key, value] : metadata) {
    check_text(key, file, "a metadata key");
    check_text(value, file, "a metadata value");
  }
}

}  // namespace

void sort_for_writing(std::vector<TensorToWrite>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    const auto rank_a = safetensors::dtype_rank(a.dtype);
    const auto rank_b = safetensors::dtype_rank(b.dtype);
    return std::tie(rank_b, a.name) < std::tie(rank_a, b.name);
  });
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  check_input(tensors, metadata, path.string());
  sort_for_writing(tensors);
  safetensors::Header header{.tensors = {}, .metadata = metadata};
  std::uint64_t position = 0;
  for (const TensorToWrite& tensor : tensors) {
    header.tensors.push_back(
        {tensor.name, tensor.dtype, tensor.shape, position, position + tensor.bytes.size()});
    position += tensor.bytes.size();
  }
  const std::string text = safetensors::render_header(header);
  if (text.size() > safetensors::max_header_bytes)
    refuse(path.string(), "the header grows too large", fmt::format("{} bytes", text.size()),
           fmt::format("at most {}", safetensors::max_header_bytes));
  const std::uint64_t length = text.size();

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(text)));
  for (const TensorToWrite& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace qtrain
