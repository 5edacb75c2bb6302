// A radix sort: divides codes into buckets by one byte after another, until a bucket fits the
// cache, and sorts the bucket by the next eight bytes.
#include "sort.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace gpq {
namespace {

constexpr size_t KEY_BYTES = 8;
constexpr size_t FEW = 64;  // fewer items are sorted by comparing, which is faster than counting
#if defined(GPQ_SMALL)
constexpr size_t MANY = 500;
#else
constexpr size_t MANY = size_t(1) << 15;  // the keys of more codes would take much memory
#endif

struct Item {
    uint64_t key;
    uint32_t number;
};

bool by_key(const Item& a, const Item& b) { return a.key < b.key; }

uint64_t key_of(const uint8_t* code, size_t from, size_t to) {
    uint64_t key = 0;
    for (size_t i = from; i < to; ++i) key = key << 8 | swapped(code[i]);
    return key;
}

// Sorts items by key, stably. scratch is working memory.
void sort_items(std::vector<Item>& items, std::vector<Item>& scratch, size_t key_bytes) {
    if (items.size() < FEW) {
        std::stable_sort(items.begin(), items.end(), by_key);
        return;
    }
    scratch.resize(items.size());
    for (size_t byte = 0; byte < key_bytes; ++byte) {
        const auto digit = [byte](const Item& item) { return item.key >> (8 * byte) & 255; };
        std::array<uint32_t, 257> starts{};
        for (const Item& item : items) ++starts[digit(item) + 1];
        if (starts[digit(items[0]) + 1] == items.size()) continue;
        for (size_t d = 0; d < 256; ++d) starts[d + 1] += starts[d];
        for (const Item& item : items) scratch[starts[digit(item)]++] = item;
        items.swap(scratch);
    }
}

// Sorts codes whose keys are equal by comparing their bytes from `from` on.
void sort_rest(const uint8_t* packed, size_t width, size_t from, uint32_t* first, uint32_t* last) {
    std::stable_sort(first, last, [=](uint32_t a, uint32_t b) {
        return std::lexicographical_compare(
            packed + a * width + from, packed + (a + 1) * width, packed + b * width + from,
            packed + (b + 1) * width,
            [](uint8_t left, uint8_t right) { return swapped(left) < swapped(right); });
    });
}

class Sorter {
  public:
    Sorter(const uint8_t* packed, size_t width) : packed_(packed), width_(width) {}

    // Sorts by the bytes from `from` on, stably: into buckets by one byte after another, until the
    // keys of a bucket fit the cache.
    void sort(uint32_t* first, uint32_t* last, size_t from) {
        if (from == width_ || last - first < 2) return;
        if (size_t(last - first) <= MANY) {
            sort_by_keys(first, last, from);
            return;
        }
        std::array<size_t, 257> starts{};
        for (const uint32_t* number = first; number != last; ++number) ++starts[digit(*number, from) + 1];
        for (size_t d = 0; d < 256; ++d) starts[d + 1] += starts[d];
        unsorted_.assign(first, last);
        std::array<size_t, 257> ends = starts;
        for (const uint32_t number : unsorted_) first[ends[digit(number, from)]++] = number;
        for (size_t d = 0; d < 256; ++d) sort(first + starts[d], first + starts[d + 1], from + 1);
    }

  private:
    uint8_t digit(uint32_t number, size_t byte) const {
        return swapped(packed_[number * width_ + byte]);
    }

    void sort_by_keys(uint32_t* first, uint32_t* last, size_t from) {
        const size_t end = std::min(width_, from + KEY_BYTES);
        items_.clear();
        for (const uint32_t* number = first; number != last; ++number)
            items_.push_back({key_of(packed_ + *number * width_, from, end), *number});
        sort_items(items_, scratch_, end - from);
        for (size_t i = 0; i < items_.size(); ++i) first[i] = items_[i].number;
        if (end == width_) return;
        for (size_t i = 0, j; i < items_.size(); i = j) {
            for (j = i + 1; j < items_.size() && items_[j].key == items_[i].key;) ++j;
            if (j - i > 1) sort_rest(packed_, width_, end, first + i, first + j);
        }
    }

    const uint8_t* packed_;
    size_t width_;
    std::vector<uint32_t> unsorted_;
    std::vector<Item> items_, scratch_;
};

}  // namespace

std::vector<uint32_t> sorted_order(const uint8_t* packed, size_t count, size_t width) {
    std::vector<uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    Sorter(packed, width).sort(order.data(), order.data() + count, 0);
    return order;
}

}  // namespace gpq
