// Owners and types for cuDNN's graph API: descriptors that are filled with attributes and then finalized.
#pragma once

#include <cudnn_graph.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace qtrain::cudnn {

// cuDNN can't do this, or not this way: the caller tries another. Never leaves engine/backend/cuda.
struct Declined : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws Declined where the library judged the request (statuses 2000 to 4999: parameters, no support, no
// kernel that compiles), and DeviceError where the library itself is broken or the work failed.
void check(cudnnStatus_t status, std::string_view call, std::string_view subject = {});
// Throws DeviceError for every failure.
void require(cudnnStatus_t status, std::string_view call, std::string_view subject);

class Handle {
 public:
  explicit Handle(cudaStream_t stream);  // work goes there
  cudnnHandle_t get() const { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(cudnnHandle_t handle) const { cudnnDestroy(handle); }
  };
  std::unique_ptr<cudnnContext, Destroy> handle_;
};

// The attribute type of a C++ type. Descriptors are void pointers to C, like data; here they are a class of
// their own.
template <class T>
inline constexpr cudnnBackendAttributeType_t attribute_type =
    [] { static_assert(sizeof(T) == 0, "no attribute of cuDNN has this type"); }();
template <>
inline constexpr auto attribute_type<cudnnHandle_t> = CUDNN_TYPE_HANDLE;
template <>
inline constexpr auto attribute_type<cudnnDataType_t> = CUDNN_TYPE_DATA_TYPE;
template <>
inline constexpr auto attribute_type<bool> = CUDNN_TYPE_BOOLEAN;
template <>
inline constexpr auto attribute_type<std::int64_t> = CUDNN_TYPE_INT64;
template <>
inline constexpr auto attribute_type<float> = CUDNN_TYPE_FLOAT;
template <>
inline constexpr auto attribute_type<void*> = CUDNN_TYPE_VOID_PTR;
template <>
inline constexpr auto attribute_type<char> = CUDNN_TYPE_CHAR;
template <>
inline constexpr auto attribute_type<cudnnConvolutionMode_t> = CUDNN_TYPE_CONVOLUTION_MODE;
template <>
inline constexpr auto attribute_type<cudnnBackendHeurMode_t> = CUDNN_TYPE_HEUR_MODE;
template <>
inline constexpr auto attribute_type<cudnnPointwiseMode_t> = CUDNN_TYPE_POINTWISE_MODE;
template <>
inline constexpr auto attribute_type<cudnnBackendNumericalNote_t> = CUDNN_TYPE_NUMERICAL_NOTE;

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);

  template <class T>
  void set(cudnnBackendAttributeName_t name, std::span<const T> values) {
    set(name, attribute_type<T>, values.size(), values.data());
  }
  template <class T, std::size_t n>
  void set(cudnnBackendAttributeName_t name, const std::array<T, n>& values) {
    set(name, std::span<const T>(values));
  }
  template <class T>
  void set(cudnnBackendAttributeName_t name, const T& value) {
    set(name, std::span<const T>(&value, 1));
  }
  void set(cudnnBackendAttributeName_t name, const Descriptor& value);
  void set(cudnnBackendAttributeName_t name, std::span<const Descriptor* const> values);

  void finalize();

  // One value, or as many as there are, up to `most`.
  template <class T>
  T get(cudnnBackendAttributeName_t name) const {
    T value{};
    get(name, attribute_type<T>, 1, &value);
    return value;
  }
  template <class T>
  std::vector<T> get_all(cudnnBackendAttributeName_t name, std::size_t most) const {
    std::vector<T> values(most);
    values.resize(get(name, attribute_type<T>, most, values.data()));
    return values;
  }
  // Descriptors are written into ones that were made for it.
  Descriptor get_descriptor(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type) const;
  std::vector<Descriptor> get_descriptors(cudnnBackendAttributeName_t name,
                                          cudnnBackendDescriptorType_t type) const;

  cudnnBackendDescriptor_t raw() const { return descriptor_.get(); }

 private:
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t count,
           const void* values);
  // How many there are, also where `values` holds fewer.
  std::size_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t most,
                  void* values) const;

  struct Destroy {
    void operator()(void* descriptor) const { cudnnBackendDestroyDescriptor(descriptor); }
  };
  std::unique_ptr<void, Destroy> descriptor_;
};

// What plans are made for: the GPU of a handle, or one that is only described, which needn't be in this
// machine.
struct Target {
  const Handle* handle = nullptr;
  const Descriptor* description = nullptr;
};

// A described GPU, from cuDNN's own representation of devices. Throws Declined for what it doesn't
// understand.
Descriptor described_device(std::string_view json);

}  // namespace qtrain::cudnn
