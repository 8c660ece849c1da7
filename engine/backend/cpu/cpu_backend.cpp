#include "engine/backend/cpu/cpu_backend.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "engine/kernels/parallel.h"

namespace qtrain {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

// Segments in huge pages where the kernel grants them: a training step touches hundreds of megabytes.
void* acquire_segment(std::size_t bytes) {
  const std::size_t size = (bytes + huge_page - 1) / huge_page * huge_page;
  void* segment = std::aligned_alloc(huge_page, size);
  if (segment != nullptr) madvise(segment, size, MADV_HUGEPAGE);
  return segment;
}

void free_segment(void* segment, std::size_t /*bytes*/) {
  std::free(segment);  // NOLINT(cppcoreguidelines-no-malloc): the counterpart of aligned_alloc
}

// QTRAIN_ALLOCATOR=system turns caching off; under AddressSanitizer that is the default.
std::unique_ptr<Allocator> make_allocator() {
#if defined(__SANITIZE_ADDRESS__)
  constexpr bool system_by_default = true;
#else
  constexpr bool system_by_default = false;
#endif
  const char* choice = std::getenv("QTRAIN_ALLOCATOR");
  const bool system = choice == nullptr ? system_by_default : std::string_view(choice) == "system";
  if (system) return std::make_unique<SystemAllocator>();
  return std::make_unique<CachingAllocator>(SegmentSource{acquire_segment, free_segment});
}

}  // namespace

CpuBackend::CpuBackend() : allocator_(make_allocator()) {}

void CpuBackend::copy(const Stream&, void* to, const void* from, std::size_t bytes, CopyKind) {
  parallel_for(static_cast<std::int64_t>(bytes), std::int64_t{1} << 18,
               [&](std::int64_t begin, std::int64_t end) {
                 std::memcpy(static_cast<std::byte*>(to) + begin, static_cast<const std::byte*>(from) + begin,
                             static_cast<std::size_t>(end - begin));
               });
}

void CpuBackend::fill_zero(const Stream&, void* to, std::size_t bytes) {
  parallel_for(static_cast<std::int64_t>(bytes), std::int64_t{1} << 18,
               [&](std::int64_t begin, std::int64_t end) {
                 std::memset(static_cast<std::byte*>(to) + begin, 0, static_cast<std::size_t>(end - begin));
               });
}

}  // namespace qtrain
