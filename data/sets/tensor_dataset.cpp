#include "data/sets/tensor_dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "engine/core/error.h"
#include "engine/io/safetensors.h"

namespace qtrain::data {
namespace {

constexpr std::int64_t max_classes = 100'000;

std::string describe_tensor(const TensorEntry& tensor) {
  return fmt::format("{} [{}]", tensor.dtype, fmt::join(tensor.shape, ", "));
}

template <class T>
T element(const TensorEntry& tensor, std::size_t index) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

std::int64_t label_at(const TensorEntry& labels, std::size_t index) {
  return labels.dtype == "I64" ? element<std::int64_t>(labels, index) : element<std::int32_t>(labels, index);
}

[[noreturn]] void wrong_tensor(const SafetensorsFile& file, const TensorEntry& tensor,
                               const std::string& expected) {
  throw FormatError({.where = file.name(),
                     .what = "tensor '" + tensor.name + "' can't be used",
                     .got = describe_tensor(tensor),
                     .expected = expected});
}

const TensorEntry& require_tensor(const SafetensorsFile& file, const std::string& name) {
  if (const TensorEntry* tensor = file.find(name)) return *tensor;
  std::vector<std::string> names;
  for (const TensorEntry& each : file.entries()) names.push_back(each.name);
  names.resize(std::min<std::size_t>(names.size(), 8));
  throw FormatError({.where = file.name(),
                     .what = "no tensor '" + name + "'",
                     .got = names.empty() ? "no tensors" : fmt::format("{}", fmt::join(names, ", ")),
                     .expected = "images [N,3,H,W] uint8 or float32 and labels [N] int64 or int32"});
}

// The largest label, after a check of all.
std::int64_t check_labels(const SafetensorsFile& file, const TensorEntry& labels, std::int64_t limit) {
  if (labels.shape.size() != 1 || (labels.dtype != "I64" && labels.dtype != "I32")) {
    wrong_tensor(file, labels, "I64 [N] or I32 [N]");
  }
  std::int64_t largest = -1;
  for (std::size_t i = 0; i < static_cast<std::size_t>(labels.shape[0]); ++i) {
    const std::int64_t label = label_at(labels, i);
    if (label < 0 || label >= limit) {
      throw FormatError({.where = file.name(),
                         .what = "label out of range",
                         .got = fmt::format("{}[{}] = {}", labels.name, i, label),
                         .expected = fmt::format("0 to {}", limit - 1)});
    }
    largest = std::max(largest, label);
  }
  return largest;
}

std::int64_t count_classes(const SafetensorsFile& file) {
  std::int64_t limit = max_classes;
  const auto stated = file.metadata().find("classes");
  const bool has_number = stated != file.metadata().end();
  if (has_number) {
    const std::string& text = stated->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
    if (error != std::errc() || end != text.data() + text.size() || limit < 1 || limit > max_classes) {
      throw FormatError({.where = file.name(),
                         .what = "metadata 'classes' is no number of classes",
                         .got = "'" + text + "'",
                         .expected = fmt::format("1 to {}", max_classes)});
    }
  }
  std::int64_t largest = check_labels(file, require_tensor(file, "labels"), limit);
  if (const TensorEntry* val = file.find("val_labels")) {
    largest = std::max(largest, check_labels(file, *val, limit));
  }
  return has_number ? limit : largest + 1;
}

class TensorDataset final : public Dataset {
 public:
  TensorDataset(SafetensorsFile file, const std::string& prefix)
      : file_(std::move(file)),
        images_(require_tensor(file_, prefix + "images")),
        labels_(require_tensor(file_, prefix + "labels")),
        is_float_(images_.dtype == "F32") {
    check_images();
    const std::int64_t count = count_classes(file_);
    for (std::int64_t i = 0; i < count; ++i) classes_.push_back(std::to_string(i));
  }

  std::size_t size() const override { return static_cast<std::size_t>(images_.shape[0]); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  Size image_size() const override {
    return {static_cast<int>(images_.shape[3]), static_cast<int>(images_.shape[2])};
  }
  Content content() const override { return is_float_ ? Content::floats : Content::pixels; }

  void fetch(std::size_t index, Record& sample) const override {
    sample.name = describe(index);
    sample.label = label_at(labels_, index);
    if (is_float_) {
      interleave(index, sample.values);
      return;
    }
    sample.image.width = image_size().width;
    sample.image.height = image_size().height;
    interleave(index, sample.image.rgb);
  }

  std::string describe(std::size_t index) const override {
    return fmt::format("{}, {}[{}]", file_.name(), images_.name, index);
  }

 private:
  void check_images() const {
    const std::vector<std::int64_t>& shape = images_.shape;
    const bool fits = (is_float_ || images_.dtype == "U8") && shape.size() == 4 && shape[1] == 3 &&
                      shape[2] >= 1 && shape[2] <= 8192 && shape[3] >= 1 && shape[3] <= 8192;
    if (!fits) wrong_tensor(file_, images_, "U8 or F32 [N, 3, H, W] with H and W from 1 to 8192");
    if (shape[0] < 1) wrong_tensor(file_, images_, "at least one image");
    if (labels_.shape.size() != 1 || labels_.shape[0] != shape[0]) {
      wrong_tensor(file_, labels_, fmt::format("[{}], one for each of '{}'", shape[0], images_.name));
    }
  }

  // Planes to pixels: CHW to HWC.
  template <class T>
  void interleave(std::size_t index, std::vector<T>& out) const {
    const auto plane = static_cast<std::size_t>(images_.shape[2] * images_.shape[3]);
    out.resize(3 * plane);
    for (std::size_t c = 0; c < 3; ++c) {
      const std::size_t first = (index * 3 + c) * plane;
      for (std::size_t i = 0; i < plane; ++i) out[3 * i + c] = element<T>(images_, first + i);
    }
  }

  SafetensorsFile file_;
  const TensorEntry& images_;
  const TensorEntry& labels_;
  bool is_float_;
  std::vector<std::string> classes_;
};

}  // namespace

std::shared_ptr<const Dataset> open_tensor_dataset(const std::filesystem::path& path, Split split) {
  SafetensorsFile file = SafetensorsFile::open(path);
  const bool own_val = file.find("val_images") != nullptr || file.find("val_labels") != nullptr;
  return std::make_shared<TensorDataset>(std::move(file), split == Split::val && own_val ? "val_" : "");
}

}  // namespace qtrain::data
