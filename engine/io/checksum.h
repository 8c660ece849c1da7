// XXH3 with 128 or 64 bits: finds damage at memory speed. Not a defence against forgery.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct XXH3_state_s;  // libxxhash's own name

namespace qtrain {

class Checksum {
 public:
  Checksum();

  // How the stream is cut into calls doesn't matter.
  void update(std::span<const std::byte> bytes);

  // Fields of a record: 8 bytes of value, or of length in front of the text, so that neighbours can't run
  // into each other ("ab","c" differs from "a","bc").
  void update_field(std::uint64_t value);
  void update_field(std::string_view text);

  std::string hex() const;  // 32 digits, over everything so far

 private:
  struct Release {
    void operator()(XXH3_state_s* state) const noexcept;
  };
  std::unique_ptr<XXH3_state_s, Release> state_;
};

std::string checksum_hex(std::span<const std::byte> bytes);

// The 64-bit variant, for many small records.
std::uint64_t checksum_64(std::span<const std::byte> bytes);

}  // namespace qtrain
