// Zeroed memory that begins on a cache line; large buffers use huge pages if the system has them.
#pragma once

#include <algorithm>
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

// An array of `size` zeros. One more cache line behind its end may be read, but has no meaning.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t size) : size_(size) {
        constexpr size_t LINE = 64, HUGE_PAGE = size_t(1) << 21;
        const size_t alignment = bytes() >= HUGE_PAGE ? HUGE_PAGE : LINE;
        void* memory = nullptr;
        if (posix_memalign(&memory, alignment, bytes() + LINE) != 0) throw std::bad_alloc();
        values_.reset(static_cast<T*>(memory));
#if defined(MADV_HUGEPAGE)
        if (alignment == HUGE_PAGE) madvise(memory, bytes(), MADV_HUGEPAGE);
#endif
        std::memset(memory, 0, bytes() + LINE);
    }

    T* data() { return values_.get(); }
    const T* data() const { return values_.get(); }
    T& operator[](size_t i) { return values_[i]; }
    const T& operator[](size_t i) const { return values_[i]; }
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    size_t bytes() const { return size_ * sizeof(T); }
    void fill(T value) { std::fill_n(values_.get(), size_, value); }

  private:
    size_t size_ = 0;
    std::unique_ptr<T[], FreeMemory> values_;
};

}  // namespace gpq
