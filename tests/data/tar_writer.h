// Tar archives put together by hand, sound or broken.
#pragma once

#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace qtrain::data {

// The header's checksum follows when the member is complete, so that its fields can be anything.
struct TarFields {
  char type = '0';
  std::string magic = "ustar";  // and a NUL, which is there already
  std::string size = {};        // raw; empty: in octal digits
  std::string prefix = {};
  std::size_t claimed = std::string::npos;  // the size in the header, if not the content's
};

class TarWriter {
 public:
  TarWriter& add(const std::string& name, const std::string& content, const TarFields& fields = {}) {
    std::string header(512, '\0');
    const auto put = [&](std::size_t at, const std::string& text) { header.replace(at, text.size(), text); };
    put(0, name.substr(0, 100));
    put(100, "0000644");
    const std::size_t size = fields.claimed == std::string::npos ? content.size() : fields.claimed;
    char digits[16];
    std::snprintf(digits, sizeof digits, "%011zo", size);
    put(124, fields.size.empty() ? digits : fields.size);
    put(136, "00000000000");
    header[156] = fields.type;
    put(257, fields.magic);
    put(345, fields.prefix);
    put(148, "        ");
    unsigned sum = 0;
    for (const char c : header) sum += static_cast<unsigned char>(c);
    std::snprintf(digits, sizeof digits, "%06o", sum);
    put(148, std::string(digits) + std::string("\0 ", 2));
    bytes_ += header + content;
    bytes_.resize((bytes_.size() + 511) / 512 * 512);
    return *this;
  }

  // A pax record of the next member.
  static std::string pax(const std::string& key, const std::string& value) {
    const std::string rest = " " + key + "=" + value + "\n";
    std::size_t length = rest.size() + 1;
    while (std::to_string(length).size() + rest.size() != length) ++length;
    return std::to_string(length) + rest;
  }

  std::string finished() const { return bytes_ + std::string(1024, '\0'); }
  const std::string& unfinished() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace qtrain::data
