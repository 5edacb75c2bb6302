// 32 codes at a time, twice a block.
#include "filter.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2")))

namespace gpq {
namespace {

constexpr size_t AHEAD = 8192;  // bytes between what is read and what is fetched for later
constexpr int UNROLLED = 8;

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

// PLANES is 0 where there are more than UNROLLED.
template <int PLANES>
WITH_AVX2 size_t run(const uint8_t* blocks, size_t count, int planes, const uint8_t* tables,
                     uint8_t base, Survivors* survivors) {
    const int P = PLANES ? PLANES : planes;
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i start = _mm256_set1_epi8(static_cast<char>(base));
    size_t found = 0;
    for (size_t b = 0; b < count; ++b) {
        __m256i first = start;
        __m256i second = start;
        for (int p = 0; p < P; ++p, blocks += BLOCK) {
            _mm_prefetch(reinterpret_cast<const char*>(blocks) + AHEAD, _MM_HINT_T0);
            const __m256i even = table(tables + 32 * p);
            const __m256i odd = table(tables + 32 * p + 16);
            const __m256i left = load(blocks);
            const __m256i right = load(blocks + 32);
            first = _mm256_adds_epu8(first, _mm256_shuffle_epi8(even, _mm256_and_si256(left, nibble)));
            second = _mm256_adds_epu8(second, _mm256_shuffle_epi8(even, _mm256_and_si256(right, nibble)));
            const __m256i left_high = _mm256_and_si256(_mm256_srli_epi16(left, 4), nibble);
            const __m256i right_high = _mm256_and_si256(_mm256_srli_epi16(right, 4), nibble);
            first = _mm256_adds_epu8(first, _mm256_shuffle_epi8(odd, left_high));
            second = _mm256_adds_epu8(second, _mm256_shuffle_epi8(odd, right_high));
        }
        survivors[found] = {at_most_cutoff(first) | at_most_cutoff(second) << 32, uint32_t(b)};
        found += survivors[found].codes != 0;
    }
    return found;
}

constexpr Filter BY_PLANES[UNROLLED + 1] = {run<0>, run<1>, run<2>, run<3>, run<4>,
                                            run<5>, run<6>, run<7>, run<8>};

size_t choose(const uint8_t* blocks, size_t count, int planes, const uint8_t* tables, uint8_t base,
              Survivors* survivors) {
    return BY_PLANES[planes <= UNROLLED ? planes : 0](blocks, count, planes, tables, base, survivors);
}

}  // namespace

Filter filter_avx2() { return __builtin_cpu_supports("avx2") ? choose : nullptr; }

}  // namespace gpq

#else

namespace gpq {
Filter filter_avx2() { return nullptr; }
}  // namespace gpq

#endif
