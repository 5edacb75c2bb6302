// A filter that handles a block in two halves of 32 codes.
#include "filter.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2")))

namespace gpq {
namespace {

constexpr size_t AHEAD = 8192;  // distance of prefetching, in bytes
constexpr int UNROLLED = 8;     // the loop over up to this many planes is unrolled

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

// PLANES is 0 if there are more planes than UNROLLED.
template <int PLANES, size_t Q>
WITH_AVX2 void run(const uint8_t* blocks, size_t count, int planes, Filtered* filtered) {
    const int P = PLANES ? PLANES : planes;
    const __m256i nibble = _mm256_set1_epi8(15);
    size_t found[Q] = {};
    for (size_t b = 0; b < count; ++b) {
        __m256i first[Q], second[Q];
        for (size_t q = 0; q < Q; ++q)
            first[q] = second[q] = _mm256_set1_epi8(static_cast<char>(filtered[q].base));
        for (int p = 0; p < P; ++p, blocks += BLOCK) {
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

using Run = void (*)(const uint8_t* blocks, size_t count, int planes, Filtered* filtered);

template <size_t Q>
constexpr Run BY_PLANES[UNROLLED + 1] = {run<0, Q>, run<1, Q>, run<2, Q>, run<3, Q>, run<4, Q>,
                                         run<5, Q>, run<6, Q>, run<7, Q>, run<8, Q>};

// Handles Q queries at a time, and the rest with half of Q.
template <size_t Q>
void choose(const uint8_t* blocks, size_t count, int planes, Filtered* filtered, size_t queries) {
    for (; queries >= Q; queries -= Q, filtered += Q)
        BY_PLANES<Q>[planes <= UNROLLED ? planes : 0](blocks, count, planes, filtered);
    if constexpr (Q > 1) choose<Q / 2>(blocks, count, planes, filtered, queries);
}

}  // namespace

Filter filter_avx2() { return __builtin_cpu_supports("avx2") ? choose<MOST_QUERIES> : nullptr; }

}  // namespace gpq

#else

namespace gpq {
Filter filter_avx2() { return nullptr; }
}  // namespace gpq

#endif
