#include "mask.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gpq {
namespace {

uint64_t word_of(const uint8_t* bytes) {
    uint64_t bits = 0;
#if defined(__x86_64__)
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
        const uint64_t highest = ((word & LOW) + LOW | word) & ~LOW;  // of each byte that is not 0
        bits |= (highest >> 7) * (GATHER << 7) >> 56 << 8 * i;
    }
#endif
    return bits;
}

void set_bits_portable(const uint8_t* bytes, size_t words, uint64_t* bits) {
    for (size_t w = 0; w < words; ++w) bits[w] = word_of(bytes + 64 * w);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t half_of(const uint8_t* bytes) {
    const __m256i part = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    return ~uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(part, _mm256_setzero_si256())));
}

__attribute__((target("avx2"))) void set_bits_avx2(const uint8_t* bytes, size_t words,
                                                   uint64_t* bits) {
    for (size_t w = 0; w < words; ++w, bytes += 64)
        bits[w] = half_of(bytes) | half_of(bytes + 32) << 32;
}
#endif

}  // namespace

void set_bits(const uint8_t* bytes, size_t words, uint64_t* bits) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return set_bits_avx2(bytes, words, bits);
#endif
    set_bits_portable(bytes, words, bits);
}

uint64_t set_bits(const uint8_t* bytes, size_t count) {
    uint8_t padded[64] = {};
    std::memcpy(padded, bytes, count);
    return word_of(padded);
}

}  // namespace gpq
