// The labelled images of one tar archive in WebDataset's convention: the members whose names agree up to the
// first dot behind the last slash are a sample, 000123.jpg and 000123.cls, say, in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace qtrain::data {

inline constexpr std::uint32_t max_tar_label = 99'999;

struct TarSample {
  std::string name;        // of the image's member
  std::size_t offset = 0;  // of the image in the archive
  std::uint32_t length = 0;
  std::uint32_t label = 0;
};

// In the order in which their first members stand in the archive. Images are .jpg, .jpeg, .png, .ppm, .pgm,
// .bmp, .gif and .psd, in upper or lower case; labels .cls or .cls.txt, a decimal number, or else .json with
// an integer "label" or "cls". Members of other kinds, hidden ones and folders don't count. Throws
// FormatError, which names archive and offset: what TarReader throws, a sample with two images or labels, an
// image without a label or a label without an image, a label that is no number from 0 to max_tar_label, an
// image that is a link, no sample at all.
std::vector<TarSample> read_tar_samples(std::span<const std::byte> archive,
                                        const std::string& name_for_errors,
                                        const std::function<void(std::span<const std::byte>)>& bring = {});

}  // namespace qtrain::data
