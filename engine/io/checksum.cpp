#include "engine/io/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <new>

namespace qtrain {
namespace {

std::string hex_of(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

void Checksum::Release::operator()(XXH3_state_s* state) const noexcept {
  XXH3_freeState(state);
}

Checksum::Checksum() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(state_.get());
}

void Checksum::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
}

void Checksum::update_field(std::uint64_t value) {
  update(std::as_bytes(std::span(&value, 1)));
}

void Checksum::update_field(std::string_view text) {
  update_field(std::uint64_t{text.size()});
  update(std::as_bytes(std::span(text)));
}

std::string Checksum::hex() const {
  return hex_of(XXH3_128bits_digest(state_.get()));
}

std::string checksum_hex(std::span<const std::byte> bytes) {
  return hex_of(XXH3_128bits(bytes.data(), bytes.size()));
}

std::uint64_t checksum_64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace qtrain
