// Argument checks shared by the ops: each throws the typed error with the op's name, what was met and what is
// needed.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "engine/backend/geometry.h"
#include "engine/core/tensor.h"

namespace qtrain::check {

// A defined tensor of that element type, on the reference's device where one is given.
void tensor(std::string_view op, std::string_view name, const Tensor& t, DType dtype = DType::f32);
// A defined tensor of a type that ops compute with: f32 or bf16.
void floats(std::string_view op, std::string_view name, const Tensor& t);
void rank(std::string_view op, std::string_view name, const Tensor& t,
          std::initializer_list<std::size_t> ranks);
void shape(std::string_view op, std::string_view name, const Tensor& t, const Shape& expected);
void padding(std::string_view op, const Border& border);  // nowhere negative, nor huge
void same_device(std::string_view op, std::initializer_list<Tensor> tensors);
// Throws ShapeError / ValueError unless `holds`.
void sizes(bool holds, std::string_view op, std::string_view what, const std::string& got,
           const std::string& expected, const std::string& hint = "");
void value(bool holds, std::string_view op, std::string_view what, const std::string& got,
           const std::string& expected, const std::string& hint = "");

}  // namespace qtrain::check
