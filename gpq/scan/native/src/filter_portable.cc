// A filter in plain C++, which every compiler can build.
#include <cstring>

#include "filter.h"

namespace gpq {
namespace {

// row: bytes of a row in the tables.
size_t run(const uint8_t* blocks, size_t count, int planes, size_t row,
           const Filtered& filtered) {
    size_t found = 0;
    for (size_t b = 0; b < count; ++b) {
        uint16_t sums[BLOCK];
        for (uint16_t& sum : sums) sum = filtered.base;
        for (int p = 0; p < planes; ++p, blocks += BLOCK) {
            const uint8_t* low = filtered.tables + 2 * row * p;
            const uint8_t* high = low + row;
            for (size_t i = 0; i < BLOCK; ++i) sums[i] += low[blocks[i] & 15] + high[blocks[i] >> 4];
        }
        uint64_t word = 0;
        for (size_t i = 0; i < BLOCK; ++i) word |= uint64_t(sums[i] <= filtered.cutoff) << i;
        filtered.survivors[found] = {word, uint32_t(b)};
        found += word != 0;
    }
    return found;
}

// All sums have 16 bits.
void filter(const uint8_t* blocks, size_t count, int planes, bool wide, Filtered* filtered,
            size_t queries) {
    for (Filtered* f = filtered; f < filtered + queries; ++f)
        f->found = run(blocks, count, planes, wide ? 16 * COPIES : 16, *f);
}

}  // namespace

Filter filter_portable() { return filter; }

}  // namespace gpq
