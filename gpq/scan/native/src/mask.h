// A byte a row: which rows are eligible.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gpq {

// Calls visit with each row from first to last whose byte is not 0, ascending, until it returns
// false; whether it never did.
template <class Visit>
bool for_set(const uint8_t* mask, uint32_t first, uint32_t last, const Visit& visit) {
    constexpr uint32_t STRIDE = 64;
    for (uint32_t i = first; i < last; i += std::min(STRIDE, last - i)) {
        const uint32_t stop = i + std::min(STRIDE, last - i);
        uint64_t words[STRIDE / 8] = {};
        std::memcpy(words, mask + i, stop - i);
        uint64_t any = 0;
        for (const uint64_t word : words) any |= word;
        if (!any) continue;
        for (uint32_t w = 0; w < STRIDE / 8; ++w)
            for (uint64_t word = words[w], byte; word; word &= ~(uint64_t(255) << 8 * byte)) {
                byte = uint64_t(__builtin_ctzll(word)) / 8;
                if (!visit(i + 8 * w + uint32_t(byte))) return false;
            }
    }
    return true;
}

}  // namespace gpq
