// A filter that handles 64 codes at a time. A source that includes it must first define TARGET, the
// attribute that names its instructions, and the functions low_looked_up and high_looked_up, which
// look up the low and the high sub-code of each byte in a table.
#include <immintrin.h>

#include "filter.h"

namespace gpq {
namespace {

constexpr size_t AHEAD = 8192;  // distance of prefetching, in bytes
constexpr int UNROLLED = 8;     // with up to this many planes, tables stay in registers
constexpr int PAIRED = 6;       // with up to this many planes, tables of two queries do

TARGET inline __m512i table(const uint8_t* sixteen) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

// PLANES is 0 if there are more planes than UNROLLED.
template <int PLANES, size_t Q>
TARGET void run(const uint8_t* blocks, size_t count, int planes, Filtered* filtered) {
    constexpr size_t KEPT = 2 * PLANES;
    const int P = PLANES ? PLANES : planes;
    __m512i kept[Q][KEPT ? KEPT : 1];
    for (size_t q = 0; q < Q; ++q)
        for (size_t i = 0; i < KEPT; ++i) kept[q][i] = table(filtered[q].tables + 16 * i);
    const __m512i cutoff = _mm512_set1_epi8(static_cast<char>(CUTOFF));
    size_t found[Q] = {};
    for (size_t b = 0; b < count; ++b) {
        __m512i even[Q], odd[Q];
        for (size_t q = 0; q < Q; ++q) {
            even[q] = _mm512_set1_epi8(static_cast<char>(filtered[q].base));
            odd[q] = _mm512_setzero_si512();
        }
        for (int p = 0; p < P; ++p, blocks += BLOCK) {
            _mm_prefetch(reinterpret_cast<const char*>(blocks) + AHEAD, _MM_HINT_T0);
            const __m512i bytes = _mm512_loadu_si512(blocks);
            for (size_t q = 0; q < Q; ++q) {
                const uint8_t* tables = filtered[q].tables + 32 * p;
                const __m512i even_table = KEPT ? kept[q][2 * p] : table(tables);
                const __m512i odd_table = KEPT ? kept[q][2 * p + 1] : table(tables + 16);
                even[q] = _mm512_adds_epu8(even[q], low_looked_up(even_table, bytes));
                odd[q] = _mm512_adds_epu8(odd[q], high_looked_up(odd_table, bytes));
            }
        }
        for (size_t q = 0; q < Q; ++q) {
            const __m512i sums = _mm512_adds_epu8(even[q], odd[q]);
            const uint64_t codes = _mm512_cmple_epu8_mask(sums, cutoff);
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

void choose(const uint8_t* blocks, size_t count, int planes, Filtered* filtered, size_t queries) {
    for (; planes <= PAIRED && queries >= 2; queries -= 2, filtered += 2)
        BY_PLANES<2>[planes](blocks, count, planes, filtered);
    for (; queries; --queries, ++filtered)
        BY_PLANES<1>[planes <= UNROLLED ? planes : 0](blocks, count, planes, filtered);
}

}  // namespace
}  // namespace gpq
