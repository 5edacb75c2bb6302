// A byte a row: which rows are eligible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace gpq {

// A bit for each of 64 bytes that is not 0.
inline uint64_t set_bits(const uint8_t* bytes) {
    uint64_t bits = 0;
#if defined(__SSE2__)
    for (int i = 0; i < 4; ++i) {
        const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 16 * i));
        const int zero = _mm_movemask_epi8(_mm_cmpeq_epi8(part, _mm_setzero_si128()));
        bits |= uint64_t(uint16_t(~zero)) << 16 * i;
    }
#else
    constexpr uint64_t LOW = 0x7f7f7f7f7f7f7f7f, GATHER = 0x0002040810204081;
    for (int i = 0; i < 8; ++i) {
        uint64_t word;
        std::memcpy(&word, bytes + 8 * i, sizeof word);
        const uint64_t highest = ((word & LOW) + LOW | word) & ~LOW;  // of each byte, where not 0
        bits |= (highest >> 7) * (GATHER << 7) >> 56 << 8 * i;
    }
#endif
    return bits;
}

// The same of the first so many.
inline uint64_t set_bits(const uint8_t* bytes, size_t count) {
    uint8_t padded[64] = {};
    std::memcpy(padded, bytes, count);
    return set_bits(padded);
}

// Calls for some processors' instruction would be slower: it is not of the least of them.
inline size_t count_bits(uint64_t bits) {
    bits -= bits >> 1 & 0x5555555555555555;
    bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
    return size_t(((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

}  // namespace gpq
