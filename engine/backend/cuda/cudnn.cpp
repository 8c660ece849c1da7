#include "engine/backend/cuda/cudnn.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/backend/cuda/runtime.h"

namespace qtrain::cudnn {
namespace {

std::string said(cudnnStatus_t status) {
  std::array<char, 512> details{};
  cudnnGetLastErrorString(details.data(), details.size());
  details.back() = '\0';
  const std::string_view reason = details.data();
  return reason.empty() ? std::string(cudnnGetErrorString(status))
                        : fmt::format("{}: {}", cudnnGetErrorString(status), reason);
}

bool judges_the_request(cudnnStatus_t status) {
  const int category = CUDNN_STATUS_CATEGORY(static_cast<int>(status));
  return category == CUDNN_STATUS_BAD_PARAM || category == CUDNN_STATUS_NOT_SUPPORTED ||
         category == CUDNN_STATUS_INTERNAL_ERROR;
}

}  // namespace

void check(cudnnStatus_t status, std::string_view call, std::string_view subject) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  if (judges_the_request(status)) throw Declined(fmt::format("{}: {}", call, said(status)));
  cuda::fail("cudnn", call, said(status), subject);
}

void require(cudnnStatus_t status, std::string_view call, std::string_view subject) {
  if (status != CUDNN_STATUS_SUCCESS) cuda::fail("cudnn", call, said(status), subject);
}

Handle::Handle(cudaStream_t stream) {
  cudnnHandle_t handle = nullptr;
  require(cudnnCreate(&handle), "cudnnCreate", "");
  handle_.reset(handle);
  require(cudnnSetStream(handle, stream), "cudnnSetStream", "");
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t descriptor = nullptr;
  const cudnnStatus_t status = cudnnBackendCreateDescriptor(type, &descriptor);
  if (status != CUDNN_STATUS_SUCCESS)
    require(status, "cudnnBackendCreateDescriptor",
            fmt::format("descriptor type {}", static_cast<int>(type)));
  descriptor_.reset(descriptor);
}

void Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t count,
                     const void* values) {
  const cudnnStatus_t status =
      cudnnBackendSetAttribute(raw(), name, type, static_cast<std::int64_t>(count), values);
  if (status != CUDNN_STATUS_SUCCESS)
    check(status, fmt::format("cudnnBackendSetAttribute({})", static_cast<int>(name)));
}

void Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& value) {
  const Descriptor* const one = &value;
  set(name, std::span<const Descriptor* const>(&one, 1));
}

void Descriptor::set(cudnnBackendAttributeName_t name, std::span<const Descriptor* const> values) {
  std::vector<cudnnBackendDescriptor_t> descriptors;
  for (const Descriptor* value : values) descriptors.push_back(value->raw());
  set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, descriptors.size(), descriptors.data());
}

void Descriptor::finalize() {
  check(cudnnBackendFinalize(raw()), "cudnnBackendFinalize");
}

std::size_t Descriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                            std::size_t most, void* values) const {
  std::int64_t count = 0;
  const cudnnStatus_t status =
      cudnnBackendGetAttribute(raw(), name, type, static_cast<std::int64_t>(most), &count, values);
  if (status != CUDNN_STATUS_SUCCESS)
    check(status, fmt::format("cudnnBackendGetAttribute({})", static_cast<int>(name)));
  return static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
}

Descriptor Descriptor::get_descriptor(cudnnBackendAttributeName_t name,
                                      cudnnBackendDescriptorType_t type) const {
  Descriptor result(type);
  cudnnBackendDescriptor_t raw_result = result.raw();
  get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw_result);
  return result;
}

std::vector<Descriptor> Descriptor::get_descriptors(cudnnBackendAttributeName_t name,
                                                    cudnnBackendDescriptorType_t type) const {
  const std::size_t available = get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
  std::vector<Descriptor> results;
  std::vector<cudnnBackendDescriptor_t> raw_results;
  for (std::size_t i = 0; i < available; ++i) raw_results.push_back(results.emplace_back(type).raw());
  if (available == 0) return results;
  const std::size_t written = get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, available, raw_results.data());
  results.erase(results.begin() + static_cast<std::ptrdiff_t>(std::min(written, available)), results.end());
  return results;
}

Descriptor described_device(std::string_view json) {
  Descriptor d(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  d.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::span<const char>(json));
  d.finalize();
  return d;
}

}  // namespace qtrain::cudnn
