// Zeroed memory on cache lines, in huge pages where it is large and the system has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gpq {

struct FreeMemory {
    void operator()(void* memory) const { std::free(memory); }
};

using Buffer = std::unique_ptr<uint8_t[], FreeMemory>;

inline Buffer zeroed(size_t bytes) {
    constexpr size_t LINE = 64, HUGE_PAGE = size_t(1) << 21;
    const size_t alignment = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : LINE;
    const size_t rounded = (bytes + LINE - 1) / LINE * LINE;
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, rounded ? rounded : LINE) != 0) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (alignment == HUGE_PAGE) madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    std::memset(memory, 0, rounded);
    return Buffer(static_cast<uint8_t*>(memory));
}

}  // namespace gpq
