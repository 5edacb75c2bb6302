// A filter that handles a block in two halves of 32 codes.
#include "filter.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2")))

namespace gpq {
namespace {

constexpr size_t AHEAD = 8192;  // distance of prefetching, in bytes

WITH_AVX2 inline __m256i load(const uint8_t* bytes) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
}

WITH_AVX2 inline __m256i table(const uint8_t* sixteen) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

WITH_AVX2 inline uint64_t at_most_cutoff(__m256i sums) {
    const __m256i cutoff = _mm256_set1_epi8(static_cast<char>(CUTOFF));
    const __m256i within = _mm256_cmpeq_epi8(_mm256_min_epu8(sums, cutoff), sums);
    return static_cast<uint32_t>(_mm256_movemask_epi8(within));
}

// Filters with sums of 8 bits.
template <int PLANES, size_t Q>
WITH_AVX2 void run(const uint8_t* blocks, size_t count, Filtered* filtered) {
    const __m256i nibble = _mm256_set1_epi8(15);
    size_t found[Q] = {};
    for (size_t b = 0; b < count; ++b) {
        __m256i first[Q], second[Q];
        for (size_t q = 0; q < Q; ++q)
            first[q] = second[q] = _mm256_set1_epi8(static_cast<char>(filtered[q].base));
        for (int p = 0; p < PLANES; ++p, blocks += BLOCK) {
            _mm_prefetch(reinterpret_cast<const char*>(blocks) + AHEAD, _MM_HINT_T0);
            const __m256i left = load(blocks);
            const __m256i right = load(blocks + 32);
            const __m256i left_low = _mm256_and_si256(left, nibble);
            const __m256i right_low = _mm256_and_si256(right, nibble);
            const __m256i left_high = _mm256_and_si256(_mm256_srli_epi16(left, 4), nibble);
            const __m256i right_high = _mm256_and_si256(_mm256_srli_epi16(right, 4), nibble);
            for (size_t q = 0; q < Q; ++q) {
                const __m256i even = table(filtered[q].tables + 32 * p);
                const __m256i odd = table(filtered[q].tables + 32 * p + 16);
                first[q] = _mm256_adds_epu8(first[q], _mm256_shuffle_epi8(even, left_low));
                second[q] = _mm256_adds_epu8(second[q], _mm256_shuffle_epi8(even, right_low));
                first[q] = _mm256_adds_epu8(first[q], _mm256_shuffle_epi8(odd, left_high));
                second[q] = _mm256_adds_epu8(second[q], _mm256_shuffle_epi8(odd, right_high));
            }
        }
        for (size_t q = 0; q < Q; ++q) {
            const uint64_t codes = at_most_cutoff(first[q]) | at_most_cutoff(second[q]) << 32;
            filtered[q].survivors[found[q]] = {codes, uint32_t(b)};
            found[q] += codes != 0;
        }
    }
    for (size_t q = 0; q < Q; ++q) filtered[q].found = found[q];
}

constexpr size_t ROW = 16 * COPIES;  // bytes of a row in tables of wide sums

// The wide sums of 32 codes. A word of `both` is the sum of an even code plus 256 times that of the
// odd code behind it, modulo 2^16.
struct WideSums {
    __m256i both, odd;
};

WITH_AVX2 inline __m256i even(const WideSums& sums) {
    return _mm256_sub_epi16(sums.both, _mm256_slli_epi16(sums.odd, 8));
}

WITH_AVX2 inline __m256i within(__m256i sums, __m256i cutoff) {
    return _mm256_cmpeq_epi16(_mm256_min_epu16(sums, cutoff), sums);
}

// Adds the deficits of PLANES planes, at most PAIR, to the wide sums of 32 codes.
template <int PLANES>
WITH_AVX2 inline void add_planes(const uint8_t* codes, const uint8_t* tables, WideSums& wide) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i sums = _mm256_setzero_si256();
    for (int p = 0; p < PLANES; ++p, codes += BLOCK, tables += 2 * ROW) {
        _mm_prefetch(reinterpret_cast<const char*>(codes) + AHEAD, _MM_HINT_T0);
        const __m256i bytes = load(codes);
        const __m256i low = _mm256_and_si256(bytes, nibble);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
        sums = _mm256_add_epi8(sums, _mm256_shuffle_epi8(load(tables), low));
        sums = _mm256_add_epi8(sums, _mm256_shuffle_epi8(load(tables + ROW), high));
    }
    wide.both = _mm256_add_epi16(wide.both, sums);
    wide.odd = _mm256_add_epi16(wide.odd, _mm256_srli_epi16(sums, 8));
}

WITH_AVX2 inline bool any_within(const WideSums& first, const WideSums& second, __m256i cutoff) {
    const __m256i least = _mm256_min_epu16(_mm256_min_epu16(even(first), first.odd),
                                           _mm256_min_epu16(even(second), second.odd));
    return _mm256_movemask_epi8(within(least, cutoff)) != 0;
}

WITH_AVX2 inline uint64_t at_most(const WideSums& sums, __m256i cutoff) {
    const __m256i evens = _mm256_and_si256(within(even(sums), cutoff), _mm256_set1_epi16(255));
    const __m256i odds = _mm256_slli_epi16(within(sums.odd, cutoff), 8);
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_or_si256(evens, odds)));
}

// Returns the bits of the codes that survive.
WITH_AVX2 inline uint64_t filter_wide(const uint8_t* block, int planes, const Filtered& filtered) {
    const __m256i cutoff = _mm256_set1_epi16(static_cast<short>(filtered.cutoff));
    const __m256i base = _mm256_set1_epi16(static_cast<short>(filtered.base));
    const __m256i both = _mm256_add_epi16(base, _mm256_slli_epi16(base, 8));
    WideSums first = {both, base}, second = first;
    const uint8_t* tables = filtered.tables;
    int p = 0;
    for (; p + PAIR <= planes; p += PAIR, block += PAIR * BLOCK, tables += PAIR * 2 * ROW) {
        add_planes<PAIR>(block, tables, first);
        add_planes<PAIR>(block + BLOCK / 2, tables, second);
        if (p % CHECKED == CHECKED - PAIR && !any_within(first, second, cutoff)) return 0;
    }
    if (p < planes) {
        add_planes<1>(block, tables, first);
        add_planes<1>(block + BLOCK / 2, tables, second);
    }
    return at_most(first, cutoff) | at_most(second, cutoff) << 32;
}

WITH_AVX2 void run_wide(const uint8_t* blocks, size_t count, int planes, Filtered& filtered) {
    size_t found = 0;
    for (size_t b = 0; b < count; ++b, blocks += planes * BLOCK) {
        const uint64_t codes = filter_wide(blocks, planes, filtered);
        filtered.survivors[found] = {codes, uint32_t(b)};
        found += codes != 0;
    }
    filtered.found = found;
}

using Run = void (*)(const uint8_t* blocks, size_t count, Filtered* filtered);

template <size_t Q>
constexpr Run BY_PLANES[NARROW / 2] = {run<1, Q>, run<2, Q>, run<3, Q>, run<4, Q>,
                                       run<5, Q>, run<6, Q>, run<7, Q>, run<8, Q>};

// Handles Q queries at a time, and the rest with half of Q. With wide sums, one query at a time, as
// the sums of several do not fit the registers.
template <size_t Q>
void choose(const uint8_t* blocks, size_t count, int planes, bool wide, Filtered* filtered,
            size_t queries) {
    for (; wide && queries; --queries, ++filtered) run_wide(blocks, count, planes, *filtered);
    for (; queries >= Q; queries -= Q, filtered += Q)
        BY_PLANES<Q>[planes - 1](blocks, count, filtered);
    if constexpr (Q > 1) choose<Q / 2>(blocks, count, planes, wide, filtered, queries);
}

}  // namespace

Filter filter_avx2() { return __builtin_cpu_supports("avx2") ? choose<MOST_QUERIES> : nullptr; }

}  // namespace gpq

#else

namespace gpq {
Filter filter_avx2() { return nullptr; }
}  // namespace gpq

#endif
