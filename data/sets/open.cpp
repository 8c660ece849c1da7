#include "data/sets/open.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/sets/cifar.h"
#include "data/sets/demo.h"
#include "data/sets/image_folder.h"
#include "data/sets/pack.h"
#include "data/sets/tar.h"
#include "data/sets/tar_shards.h"
#include "data/sets/tensor_dataset.h"
#include "engine/core/error.h"

namespace qtrain::data {
namespace {

// Whether text before a colon can be meant as a kind rather than as a part of a path.
bool looks_like_kind(const std::string& prefix) {
  return !prefix.empty() && std::all_of(prefix.begin(), prefix.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

constexpr auto forms = "DIR, pack:FILE, tar:DIR, cifar10:DIR, cifar100:DIR, tensors:FILE or demo";
const std::vector<std::string> kinds_with_path = {"pack", "tar", "cifar10", "cifar100", "tensors"};

}  // namespace

const std::vector<DatasetKind>& dataset_kinds() {
  static const std::vector<DatasetKind> kinds = {
      {"DIR", "ImageFolder: DIR/train and DIR/val with one folder of images per class"},
      {"FILE, pack:FILE", "image files in one file, made by 'qtrain pack'"},
      {"DIR, tar:DIR_OR_PATTERN",
       "tar archives of images and labels (WebDataset), DIR/train/*.tar and DIR/val/*.tar"},
      {"cifar10:DIR", "CIFAR-10, binary version (data_batch_1.bin to data_batch_5.bin, test_batch.bin)"},
      {"cifar100:DIR", "CIFAR-100, binary version (train.bin, test.bin), fine labels"},
      {"tensors:FILE.safetensors", "tensors images [N,3,H,W] uint8 or float32 and labels [N] int64 or int32"},
      {"demo", "a small set of textured shapes, generated once as JPEG files in the cache folder"},
  };
  return kinds;
}

std::shared_ptr<const Dataset> open_dataset(const std::string& spec, Split split, const Progress& progress) {
  if (spec == "demo") return open_image_folder(ensure_demo_set(demo_folder(), progress), split);
  const std::size_t colon = spec.find(':');
  if (colon != std::string::npos) {
    const std::string kind = spec.substr(0, colon);
    const std::string path = spec.substr(colon + 1);
    const bool known =
        std::find(kinds_with_path.begin(), kinds_with_path.end(), kind) != kinds_with_path.end();
    if (known && path.empty()) {
      throw ValueError({.where = "data", .what = "no path after '" + kind + ":'", .got = "'" + spec + "'"});
    }
    if (kind == "pack") return open_pack(path, split);
    if (kind == "tar") return open_tar(path, split);
    if (kind == "cifar10") return open_cifar(path, CifarKind::cifar10, split);
    if (kind == "cifar100") return open_cifar(path, CifarKind::cifar100, split);
    if (kind == "tensors") return open_tensor_dataset(path, split);
    if (looks_like_kind(kind) && !std::filesystem::exists(spec)) {
      throw ValueError({.where = "data",
                        .what = "unknown kind of dataset",
                        .got = "'" + kind + "'",
                        .expected = forms,
                        .hint = suggest(kind, kinds_with_path)});
    }
  }
  if (spec.empty()) {
    throw ValueError({.where = "data", .what = "the dataset's name is empty", .expected = forms});
  }
  if (is_pack(spec)) return open_pack(spec, split);
  if (spec.ends_with(".tar") || is_tar_folder(spec)) return open_tar(spec, split);
  return open_image_folder(spec, split);
}

}  // namespace qtrain::data
