// JPEG through libjpeg-turbo's jpeglib interface.
//
// libjpeg reports errors by a callback that must not return, so it has to longjmp. Jumping over a C++ object
// with a destructor is undefined, therefore every libjpeg call sits in one of JpegState's functions below,
// which hold nothing but trivial locals and turn the jump into a false return; C++ starts again outside of
// them.
//
// Warnings. libjpeg repairs what it can and says so by warnings. Those after which pixels were made up are
// errors here: data that end early (JWRN_JPEG_EOF), a marker in the middle of the data (JWRN_HIT_MARKER) and
// lost restart markers (JWRN_MUST_RESYNC: whole stretches of blocks are gray or shifted). All others are
// benign: many a camera writes extraneous bytes or odd scan parameters, and the pixels are right.
//
// Parts. The entropy-coded data must be read from their start up to the last row wanted, but only the blocks
// of the part go through the inverse DCT, the upsampling and the conversion of colours, and nothing is read
// behind the last row. A file cut off there shows by its missing end-of-image marker.
#include <cstdio>  // jpeglib.h needs FILE
//
#include <jpeglib.h>
//
#include <jerror.h>

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <utility>

#include "data/codec/decoders.h"

namespace qtrain::data {

// Trivial, because of the jumps. Each file gets a fresh jpeg_decompress_struct: an old one would keep hardly
// more memory than malloc does (libjpeg frees an image's memory at its end), but also the tables of its last
// file, with which it would decode a damaged file that has none.
struct JpegState {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];

  void reset();
  void destroy() {
    jpeg_destroy_decompress(&info);  // harmless where nothing was created: info is zeroed
    info.src = nullptr;              // it lay in libjpeg's memory
  }
  bool read_header(const unsigned char* bytes, unsigned long size);
  bool start(int scale);
  bool keep_columns(JDIMENSION& left, JDIMENSION& width);
  bool skip_rows(JDIMENSION count);
  bool read_rows(std::uint8_t* pixels, std::size_t stride, JDIMENSION count);
  bool finish();

  bool has_end_marker() const;
  bool can_crop() const;
};

namespace {

// Each scan of a progressive file costs a pass over the image; a small file can hold thousands. Encoders
// write about ten.
constexpr int max_scans = 200;

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

JDIMENSION divide_up(JDIMENSION a, JDIMENSION b) {
  return (a + b - 1) / b;
}

}  // namespace

void JpegState::reset() {
  destroy();
  info = {};
  info.err = jpeg_std_error(&errors);
  info.client_data = this;
  errors.error_exit = on_error;
  errors.emit_message = on_message;
  progress.progress_monitor = on_progress;
}

bool JpegState::read_header(const unsigned char* bytes, unsigned long size) {
  if (setjmp(escape)) return false;  // NOLINT(cert-err52-cpp)
  jpeg_create_decompress(&info);
  info.progress = &progress;
  jpeg_mem_src(&info, bytes, size);
  jpeg_read_header(&info, TRUE);
  return true;
}

bool JpegState::start(int scale) {
  if (setjmp(escape)) return false;  // NOLINT(cert-err52-cpp)
  info.out_color_space = info.num_components == 4 ? JCS_CMYK : JCS_RGB;
  info.scale_num = 1;
  info.scale_denom = static_cast<unsigned>(scale);
  jpeg_start_decompress(&info);
  return true;
}

// Moves `left` to the left as far as libjpeg needs.
bool JpegState::keep_columns(JDIMENSION& left, JDIMENSION& width) {
  if (setjmp(escape)) return false;  // NOLINT(cert-err52-cpp)
  jpeg_crop_scanline(&info, &left, &width);
  return true;
}

bool JpegState::skip_rows(JDIMENSION count) {
  if (setjmp(escape)) return false;  // NOLINT(cert-err52-cpp)
  jpeg_skip_scanlines(&info, count);
  return true;
}

bool JpegState::read_rows(std::uint8_t* pixels, std::size_t stride, JDIMENSION count) {
  if (setjmp(escape)) return false;  // NOLINT(cert-err52-cpp)
  for (JDIMENSION done = 0; done < count;) {
    JSAMPROW row = pixels + done * stride;
    done += jpeg_read_scanlines(&info, &row, 1);
  }
  return true;
}

bool JpegState::finish() {
  if (setjmp(escape)) return false;  // NOLINT(cert-err52-cpp)
  jpeg_finish_decompress(&info);
  return true;
}

// Whether the bytes behind the first scan's head contain an end-of-image marker: the last two bytes of most
// files; others have something appended. In entropy-coded data FF is followed by 0 or a restart marker, and a
// thumbnail, which has an end of its own, lies in front of the first scan.
bool JpegState::has_end_marker() const {
  const JOCTET* first = info.src->next_input_byte;
  for (const JOCTET* at = first + info.src->bytes_in_buffer; at - first >= 2; --at) {
    if (at[-1] == JPEG_EOI && at[-2] == 0xFF) return true;
  }
  return false;
}

// Whether jpeg_crop_scanline and jpeg_skip_scanlines give the pixels that the whole image has there; asked
// after start().
bool JpegState::can_crop() const {
  for (int i = 0; i < info.num_components; ++i) {
    // A progressive file whose last scans are missing on purpose is smoothed over neighbouring blocks; the
    // first and last blocks of a part count as the image's border there.
    if (info.progressive_mode && info.coef_bits != nullptr) {
      const int* bits = info.coef_bits[i];
      if (std::any_of(bits, bits + DCTSIZE2, [](int missing) { return missing != 0; })) return false;
    }
    // At small scales libjpeg may enlarge chroma in the inverse DCT. jpeg_crop_scanline doesn't know, and
    // computes the width of what is left to upsample from the sampling factors.
    const jpeg_component_info& part = info.comp_info[i];
    const bool full_size =
        part.downsampled_width == info.output_width && part.downsampled_height == info.output_height;
    const JDIMENSION expected = divide_up(info.output_width * static_cast<JDIMENSION>(part.h_samp_factor),
                                          static_cast<JDIMENSION>(info.max_h_samp_factor));
    if (!full_size && part.downsampled_width != expected) return false;
  }
  return true;
}

JpegDecoder::JpegDecoder() : state_(std::make_unique<JpegState>()) {}
JpegDecoder::~JpegDecoder() {
  if (state_) state_->destroy();
}
JpegDecoder::JpegDecoder(JpegDecoder&&) noexcept = default;
JpegDecoder& JpegDecoder::operator=(JpegDecoder&& other) noexcept {
  std::swap(state_, other.state_);
  std::swap(name_, other.name_);
  return *this;
}

void JpegDecoder::check(bool ok) const {
  if (!ok) throw_damaged(name_, "damaged JPEG data", state_->message);
}

Size JpegDecoder::open(std::span<const std::byte> file, const std::string& name, std::int64_t max_pixels) {
  name_ = name;
  state_->reset();
  check(state_->read_header(reinterpret_cast<const unsigned char*>(file.data()), file.size()));
  const jpeg_decompress_struct& info = state_->info;
  check_image_size(info.image_width, info.image_height, max_pixels, name_);
  if (info.num_components == 2 || info.num_components > 4) {
    throw_damaged(name_, "JPEG with an unknown number of channels", std::to_string(info.num_components));
  }
  return {static_cast<int>(info.image_width), static_cast<int>(info.image_height)};
}

void JpegDecoder::decode(const Box& wanted, int scale, DecodedPart& part) {
  struct Release {
    JpegState& state;
    ~Release() { state.destroy(); }
  } const release{*state_};
  const jpeg_decompress_struct& info = state_->info;
  const bool complete = info.src != nullptr && state_->has_end_marker();
  check(state_->start(scale));

  // Everything, unless less will do.
  JDIMENSION left = 0;
  JDIMENSION top = 0;
  JDIMENSION width = info.output_width;
  JDIMENSION bottom = info.output_height;
  if (complete && state_->can_crop()) {
    const auto unit = static_cast<JDIMENSION>(scale);
    const auto begin = [unit](int at) { return static_cast<JDIMENSION>(at) / unit; };
    const auto end = [unit](int at, int size) {
      return divide_up(static_cast<JDIMENSION>(at) + static_cast<JDIMENSION>(size), unit);
    };
    top = begin(wanted.top);
    bottom = std::min(end(wanted.top, wanted.height), info.output_height);
    // Fancy upsampling makes a pixel's colour of the chroma samples left and right of it, and takes a part's
    // border for the image's: one more column on each side. (Rows above are seen to by libjpeg.) With fewer
    // than three chroma samples in a row it would choose another way of upsampling.
    const JDIMENSION least = 4 * static_cast<JDIMENSION>(info.max_h_samp_factor);
    left = std::max(begin(wanted.left), JDIMENSION{1}) - 1;
    const JDIMENSION right =
        std::min(std::max(end(wanted.left, wanted.width) + 1, left + least), info.output_width);
    left = std::min(left, right - std::min(right, least));
    width = right - left;
    check(state_->keep_columns(left, width));
    if (top > 0) check(state_->skip_rows(top));
  }

  part.scale = scale;
  part.left = static_cast<int>(left);
  part.top = static_cast<int>(top);
  Image& pixels = part.pixels;
  pixels.width = static_cast<int>(width);
  pixels.height = static_cast<int>(bottom - top);
  const std::size_t stride = std::size_t{3} * width;
  pixels.rgb.resize(stride * (bottom - top));
  if (info.output_components == 3) {
    check(state_->read_rows(pixels.rgb.data(), stride, bottom - top));
  } else {
    read_cmyk(pixels);
  }
  if (info.output_scanline == info.output_height) check(state_->finish());
}

namespace {

// K - C'K/255 for C' = 255 - sample, the quotient rounded, as Pillow's integers give it.
std::uint8_t shade(unsigned sample, unsigned black) {
  const unsigned product = (255 - sample) * black + 128;
  return static_cast<std::uint8_t>(black - ((product >> 8) + product) / 256);
}

}  // namespace

// libjpeg turns YCCK into CMYK but no further. Like Pillow we take the samples as Adobe writes them, inverted
// (255 is no ink), whether or not the file says so: then R = (255-C)(255-K)/255 becomes the product of two
// samples.
void JpegDecoder::read_cmyk(Image& image) {
  const auto width = static_cast<std::size_t>(image.width);
  row_.resize(width * 4);
  std::uint8_t* out = image.rgb.data();
  for (int y = 0; y < image.height; ++y) {
    check(state_->read_rows(row_.data(), row_.size(), 1));
    for (std::size_t x = 0; x < width; ++x, out += 3) {
      const std::uint8_t* inks = row_.data() + 4 * x;
      for (std::size_t c = 0; c < 3; ++c) out[c] = shade(inks[c], inks[3]);
    }
  }
}

}  // namespace qtrain::data
