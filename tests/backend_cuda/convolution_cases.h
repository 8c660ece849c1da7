// The convolutions that tests of the CUDA backend try.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "engine/backend/geometry.h"

namespace qtrain::testing_support {

struct ConvolutionCase {
  std::string name;
  Shape x;
  Shape weight;
  ConvolutionGeometry geometry{};
};

inline std::ostream& operator<<(std::ostream& out, const ConvolutionCase& c) {
  return out << c.name;
}

// Stems, blocks, downsampling, pointwise and depthwise layers of the zoo's models, and corner cases.
inline const std::vector<ConvolutionCase> convolution_cases{
    {"cifar_stem", {8, 3, 32, 32}, {16, 3, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"imagenet_stem",
     {2, 3, 64, 64},
     {64, 3, 7, 7},
     {.stride = {2, 2}, .pad_begin = {3, 3}, .pad_end = {3, 3}}},
    {"block", {4, 64, 14, 14}, {64, 64, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"downsample", {4, 64, 14, 14}, {128, 64, 1, 1}, {.stride = {2, 2}}},
    {"strided_block",
     {4, 32, 15, 15},
     {64, 32, 3, 3},
     {.stride = {2, 2}, .pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"pointwise", {4, 128, 7, 7}, {256, 128, 1, 1}, {}},
    {"depthwise", {4, 32, 14, 14}, {32, 1, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}, .groups = 32}},
    {"groups", {4, 32, 14, 14}, {64, 8, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}, .groups = 4}},
    {"dilation",
     {4, 32, 14, 14},
     {32, 32, 3, 3},
     {.pad_begin = {2, 2}, .pad_end = {2, 2}, .dilation = {2, 2}}},
    {"uneven_padding", {4, 16, 9, 9}, {16, 16, 3, 3}, {.pad_begin = {0, 1}, .pad_end = {2, 1}}},
    {"rectangular",
     {3, 16, 9, 12},
     {24, 16, 1, 5},
     {.stride = {1, 2}, .pad_begin = {0, 2}, .pad_end = {0, 2}}},
    {"odd_channels", {3, 5, 11, 11}, {7, 5, 3, 3}, {.pad_begin = {1, 1}, .pad_end = {1, 1}}},
    {"one_pixel", {8, 64, 1, 1}, {10, 64, 1, 1}, {}},
};

}  // namespace qtrain::testing_support
