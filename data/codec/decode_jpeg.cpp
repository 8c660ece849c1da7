// JPEG through libjpeg-turbo's jpeglib interface.
//
// libjpeg reports errors by a callback that must not return, so it has to longjmp. Jumping over a C++ object
// with a destructor is undefined, therefore every libjpeg call sits in one of the static functions below,
// which hold nothing but trivial locals and turn the jump into a false return; C++ starts again outside of
// them.
//
// Warnings. libjpeg repairs what it can and says so by warnings. Those after which pixels were made up are
// errors here: data that end early (JWRN_JPEG_EOF), a marker in the middle of the data (JWRN_HIT_MARKER) and
// lost restart markers (JWRN_MUST_RESYNC: whole stretches of blocks are gray or shifted). All others are
// benign: many a camera writes extraneous bytes or odd scan parameters, and the pixels are right.
#include <cstdio>  // jpeglib.h needs FILE
//
#include <jpeglib.h>
//
#include <jerror.h>

#include <csetjmp>
#include <cstdint>

#include "data/codec/decoders.h"

namespace qtrain::data {
namespace {

// Each scan of a progressive file costs a pass over the image; a small file can hold thousands. Encoders
// write about ten.
constexpr int max_scans = 200;

struct JpegState {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

JpegState& state_of(j_common_ptr info) {
  return *static_cast<JpegState*>(info->client_data);
}

[[noreturn]] void on_error(j_common_ptr info) {
  JpegState& state = state_of(info);
  info->err->format_message(info, state.message);
  std::longjmp(state.escape, 1);  // NOLINT(cert-err52-cpp): libjpeg's only way out
}

void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  ++info->err->num_warnings;
  const int code = info->err->msg_code;
  if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_MUST_RESYNC) on_error(info);
}

void on_progress(j_common_ptr info) {
  JpegState& state = state_of(info);
  if (state.info.input_scan_number <= max_scans) return;
  std::snprintf(state.message, sizeof(state.message), "more than %d scans", max_scans);
  std::longjmp(state.escape, 1);  // NOLINT(cert-err52-cpp)
}

bool read_header(JpegState& state, const unsigned char* bytes, unsigned long size) {
  if (setjmp(state.escape)) return false;  // NOLINT(cert-err52-cpp)
  jpeg_create_decompress(&state.info);
  state.info.progress = &state.progress;
  jpeg_mem_src(&state.info, bytes, size);
  jpeg_read_header(&state.info, TRUE);
  return true;
}

bool start(JpegState& state) {
  if (setjmp(state.escape)) return false;  // NOLINT(cert-err52-cpp)
  state.info.out_color_space = state.info.num_components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&state.info);
  return true;
}

bool read_rows(JpegState& state, std::uint8_t* pixels, std::size_t stride, JDIMENSION count) {
  if (setjmp(state.escape)) return false;  // NOLINT(cert-err52-cpp)
  for (JDIMENSION done = 0; done < count;) {
    JSAMPROW row = pixels + done * stride;
    done += jpeg_read_scanlines(&state.info, &row, 1);
  }
  return true;
}

bool finish(JpegState& state) {
  if (setjmp(state.escape)) return false;  // NOLINT(cert-err52-cpp)
  jpeg_finish_decompress(&state.info);
  return true;
}

class JpegDecoder {
 public:
  explicit JpegDecoder(const std::string& name) : name_(name) {
    state_.info.err = jpeg_std_error(&state_.errors);
    state_.info.client_data = &state_;
    state_.errors.error_exit = on_error;
    state_.errors.emit_message = on_message;
    state_.progress.progress_monitor = on_progress;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&state_.info); }  // harmless when creation failed: info is zeroed
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  void decode(std::span<const std::byte> bytes, std::int64_t max_pixels, Image& image) {
    check(read_header(state_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
    const jpeg_decompress_struct& info = state_.info;
    check_image_size(info.image_width, info.image_height, max_pixels, name_);
    if (info.num_components == 2 || info.num_components > 4) {
      throw_damaged(name_, "JPEG with an unknown number of channels", std::to_string(info.num_components));
    }
    check(start(state_));
    const std::size_t width = info.output_width;
    const std::size_t height = info.output_height;
    image.width = static_cast<int>(width);
    image.height = static_cast<int>(height);
    image.rgb.resize(width * height * 3);
    if (info.output_components == 3) {
      check(read_rows(state_, image.rgb.data(), width * 3, info.output_height));
    } else {
      read_cmyk(image);
    }
    check(finish(state_));
  }

 private:
  void check(bool ok) {
    if (!ok) throw_damaged(name_, "damaged JPEG data", state_.message);
  }

  // libjpeg turns YCCK into CMYK but no further. Like Pillow we take the samples as Adobe writes them,
  // inverted (255 is no ink), whether or not the file says so: then R = (255-C)(255-K)/255 becomes the
  // product of two samples.
  void read_cmyk(Image& image) {
    const auto width = static_cast<std::size_t>(image.width);
    std::vector<std::uint8_t> row(width * 4);
    std::uint8_t* out = image.rgb.data();
    for (int y = 0; y < image.height; ++y) {
      check(read_rows(state_, row.data(), row.size(), 1));
      for (std::size_t x = 0; x < width; ++x, out += 3) {
        const std::uint8_t* inks = row.data() + 4 * x;
        for (std::size_t c = 0; c < 3; ++c) out[c] = shade(inks[c], inks[3]);
      }
    }
  }

  // K - C'K/255 for C' = 255 - sample, the quotient rounded, as Pillow's integers give it.
  static std::uint8_t shade(unsigned sample, unsigned black) {
    const unsigned product = (255 - sample) * black + 128;
    return static_cast<std::uint8_t>(black - ((product >> 8) + product) / 256);
  }

  const std::string& name_;
  JpegState state_{};
};

}  // namespace

void decode_jpeg(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels,
                 Image& image) {
  JpegDecoder(name).decode(bytes, max_pixels, image);
}

}  // namespace qtrain::data
