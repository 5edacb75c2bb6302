// A filter in plain C++, which every compiler can build.
#include <cstring>

#include "filter.h"

namespace gpq {
namespace {

size_t run(const uint8_t* blocks, size_t count, int planes, const uint8_t* tables, uint8_t base,
           Survivors* survivors) {
    size_t found = 0;
    for (size_t b = 0; b < count; ++b) {
        uint16_t sums[BLOCK];
        for (uint16_t& sum : sums) sum = base;
        for (int p = 0; p < planes; ++p, blocks += BLOCK) {
            const uint8_t* low = tables + 32 * p;
            const uint8_t* high = low + 16;
            for (size_t i = 0; i < BLOCK; ++i) sums[i] += low[blocks[i] & 15] + high[blocks[i] >> 4];
        }
        uint64_t word = 0;
        for (size_t i = 0; i < BLOCK; ++i) word |= uint64_t(sums[i] <= CUTOFF) << i;
        survivors[found] = {word, uint32_t(b)};
        found += survivors[found].codes != 0;
    }
    return found;
}

void filter(const uint8_t* blocks, size_t count, int planes, Filtered* filtered, size_t queries) {
    for (Filtered* f = filtered; f < filtered + queries; ++f)
        f->found = run(blocks, count, planes, f->tables, f->base, f->survivors);
}

}  // namespace

Filter filter_portable() { return filter; }

}  // namespace gpq
