#include "quant/groups.h"

#include "engine/ops/check.h"

namespace qtrain::quant {
namespace {

bool is_channelwise(Role role) {
  return role == Role::activation || role == Role::output;
}

}  // namespace

std::int64_t resolve_groups(std::int64_t asked, const QuantizerSpec& spec, std::int64_t usual) {
  const Shape& shape = spec.shape;
  const bool convolution = shape.rank() == 4;
  if (usual == 0) usual = spec.role == Role::weight && convolution ? shape[0] : 1;
  std::int64_t units = shape[0];  // what a group holds a whole number of
  if (is_channelwise(spec.role)) units = shape.rank() > 1 ? shape[1] : 1;
  if (spec.role == Role::weight && convolution) units = shape[0] * shape[1];
  const std::int64_t groups = asked < 0 ? units / -asked : asked;
  return groups > 0 && units % groups == 0 ? groups : usual;
}

Shape parameter_shape(Role role, std::int64_t groups) {
  if (!is_channelwise(role)) return {groups, 1, 1, 1};
  return groups == 1 ? Shape{1} : Shape{1, groups, 1, 1};
}

bool needs_row_major(const Tensor& x, Role role, std::int64_t groups) {
  return !is_channelwise(role) && x.rank() == 4 && x.dim(0) % groups != 0;
}

Grouping grouping_of(std::string_view op, const Tensor& x, Role role, std::int64_t groups) {
  if (groups == 1) return {};
  check::sizes(x.rank() > (is_channelwise(role) ? 1U : 0U), op, "no dimension to divide into groups", x.str(),
               std::to_string(groups) + " groups");
  const std::int64_t size = is_channelwise(role) ? x.dim(1) : x.dim(0);
  check::sizes(size % groups == 0, op, "the tensor can't be divided into equal groups", x.str(),
               std::to_string(groups) + " groups");
  if (is_channelwise(role)) return {.outer = 1, .inner = groups, .run = size / groups};
  return {.outer = groups, .inner = 1, .run = 0};
}

}  // namespace qtrain::quant
