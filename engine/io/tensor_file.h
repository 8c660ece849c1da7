// Between tensors in memory and tensors in safetensors files. Files hold elements row-major, 4-D ones as
// N, C, H, W as PyTorch writes them; memory holds every 4-D tensor channels-last. The permutation is here.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/named_tensor.h"
#include "engine/core/tensor.h"
#include "engine/io/safetensors.h"

namespace qtrain {

using TensorMap = std::map<std::string, Tensor>;

// The format's name of a DType: f32 is "F32".
std::string_view safetensors_dtype(DType dtype);

// A tensor on the CPU, off the tape. F16 becomes f32 and BOOL u8, both exactly; the format's other dtypes
// that DType lacks are a DTypeError, more than Shape::max_rank dimensions a ShapeError, naming `file` and the
// tensor.
Tensor to_tensor(const TensorEntry& entry, const std::string& file = "");
TensorMap to_tensors(const std::vector<TensorEntry>& entries, const std::string& file = "");
TensorMap load_tensors(const std::filesystem::path& path);

// Copies of tensors on the host in file order, ready for write_safetensors or save_checkpoint. Waits for the
// tensors' devices (see host_read.h). ValueError for an undefined tensor.
class HostTensors {
 public:
  explicit HostTensors(const TensorMap& tensors);
  explicit HostTensors(const NamedTensors& tensors);
  std::vector<TensorToWrite> list() const;  // borrows from this object

 private:
  struct Copy {
    std::string name;
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
  };
  void add(const std::string& name, const Tensor& tensor);

  std::vector<Copy> copies_;
};

void save_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                  const std::map<std::string, std::string>& metadata = {});

// The names of the tensors that hold a NaN or an infinity; integer tensors never do.
std::vector<std::string> non_finite_tensors(const TensorMap& tensors);

}  // namespace qtrain
