// The filter of 64 codes at a time. What includes it has defined TARGET, its instructions, and
// low_looked_up and high_looked_up: each byte's sub-code looked up in a table.
#include <immintrin.h>

#include "filter.h"

namespace gpq {
namespace {

constexpr size_t AHEAD = 8192;  // bytes between what is read and what is fetched for later
constexpr int UNROLLED = 8;     // planes whose tables stay in registers

TARGET inline __m512i table(const uint8_t* sixteen) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

// PLANES is 0 where there are more than UNROLLED.
template <int PLANES>
TARGET size_t run(const uint8_t* blocks, size_t count, int planes, const uint8_t* tables,
                  uint8_t base, Survivors* survivors) {
    const int P = PLANES ? PLANES : planes;
    __m512i kept[PLANES ? 2 * PLANES : 1];
    if (PLANES)
        for (int i = 0; i < 2 * PLANES; ++i) kept[i] = table(tables + 16 * i);
    const __m512i cutoff = _mm512_set1_epi8(static_cast<char>(CUTOFF));
    const __m512i start = _mm512_set1_epi8(static_cast<char>(base));
    size_t found = 0;
    for (size_t b = 0; b < count; ++b) {
        __m512i even = start;
        __m512i odd = _mm512_setzero_si512();
        for (int p = 0; p < P; ++p, blocks += BLOCK) {
            _mm_prefetch(reinterpret_cast<const char*>(blocks) + AHEAD, _MM_HINT_T0);
            const __m512i bytes = _mm512_loadu_si512(blocks);
            const __m512i even_table = PLANES ? kept[2 * p] : table(tables + 32 * p);
            const __m512i odd_table = PLANES ? kept[2 * p + 1] : table(tables + 32 * p + 16);
            even = _mm512_adds_epu8(even, low_looked_up(even_table, bytes));
            odd = _mm512_adds_epu8(odd, high_looked_up(odd_table, bytes));
        }
        survivors[found] = {_mm512_cmple_epu8_mask(_mm512_adds_epu8(even, odd), cutoff), uint32_t(b)};
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
}  // namespace gpq
