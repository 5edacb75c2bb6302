// Radix sort: by the first byte into buckets, each then in the cache by the next eight.
#include "sort.h"

#include <algorithm>
#include <array>

namespace gpq {
namespace {

constexpr size_t KEY_BYTES = 8;
constexpr size_t FEW = 64;  // below it, comparing is faster than counting
#if defined(GPQ_SMALL)
constexpr size_t MANY = 500;
#else
constexpr size_t MANY = size_t(1) << 18;  // beyond it, keys would take much memory
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

// Stable; the result is in items, scratch is for use.
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

// By comparing all bytes after the first so many: slower, in little memory.
void sort_rest(const uint8_t* packed, size_t width, size_t from, uint32_t* first, uint32_t* last) {
    std::stable_sort(first, last, [=](uint32_t a, uint32_t b) {
        return std::lexicographical_compare(
            packed + a * width + from, packed + (a + 1) * width, packed + b * width + from,
            packed + (b + 1) * width,
            [](uint8_t left, uint8_t right) { return swapped(left) < swapped(right); });
    });
}

}  // namespace

std::vector<uint32_t> sorted_order(const uint8_t* packed, size_t count, size_t width) {
    std::vector<uint32_t> order(count);
    std::array<size_t, 257> starts{};
    for (size_t i = 0; i < count; ++i) ++starts[swapped(packed[i * width]) + 1];
    for (size_t d = 0; d < 256; ++d) starts[d + 1] += starts[d];
    std::array<size_t, 257> ends = starts;
    for (size_t i = 0; i < count; ++i)
        order[ends[swapped(packed[i * width])]++] = static_cast<uint32_t>(i);

    const size_t key_end = std::min(width, 1 + KEY_BYTES);
    std::vector<Item> items, scratch;
    for (size_t d = 0; d < 256 && width > 1; ++d) {
        if (starts[d + 1] - starts[d] > MANY) {
            sort_rest(packed, width, 1, order.data() + starts[d], order.data() + starts[d + 1]);
            continue;
        }
        items.clear();
        for (size_t i = starts[d]; i < starts[d + 1]; ++i)
            items.push_back({key_of(packed + order[i] * width, 1, key_end), order[i]});
        sort_items(items, scratch, key_end - 1);
        uint32_t* out = order.data() + starts[d];
        for (size_t i = 0; i < items.size(); ++i) out[i] = items[i].number;
        if (key_end == width) continue;
        for (size_t i = 0, j; i < items.size(); i = j) {
            for (j = i + 1; j < items.size() && items[j].key == items[i].key;) ++j;
            if (j - i > 1) sort_rest(packed, width, key_end, out + i, out + j);
        }
    }
    return order;
}

}  // namespace gpq
