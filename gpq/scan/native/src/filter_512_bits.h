// A filter that handles 64 codes at a time. A source that includes it must first define TARGET, the
// attribute that names its instructions, and the functions low_looked_up and high_looked_up, which
// look up the low and the high sub-code of each byte in a table.
#include <immintrin.h>

#include "filter.h"

namespace gpq {
namespace {

constexpr size_t AHEAD = 8192;  // distance of prefetching, in bytes
constexpr int PAIRED = 6;       // with up to this many planes, tables of two queries stay in registers

TARGET inline __m512i table(const uint8_t* sixteen) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

// Filters with sums of 8 bits. The tables stay in registers.
template <int PLANES, size_t Q>
TARGET void run(const uint8_t* blocks, size_t count, Filtered* filtered) {
    __m512i tables[Q][2 * PLANES];
    for (size_t q = 0; q < Q; ++q)
        for (size_t i = 0; i < 2 * PLANES; ++i) tables[q][i] = table(filtered[q].tables + 16 * i);
    const __m512i cutoff = _mm512_set1_epi8(static_cast<char>(CUTOFF));
    size_t found[Q] = {};
    for (size_t b = 0; b < count; ++b) {
        __m512i even[Q], odd[Q];
        for (size_t q = 0; q < Q; ++q) {
            even[q] = _mm512_set1_epi8(static_cast<char>(filtered[q].base));
            odd[q] = _mm512_setzero_si512();
        }
        for (int p = 0; p < PLANES; ++p, blocks += BLOCK) {
            _mm_prefetch(reinterpret_cast<const char*>(blocks) + AHEAD, _MM_HINT_T0);
            const __m512i bytes = _mm512_loadu_si512(blocks);
            for (size_t q = 0; q < Q; ++q) {
                even[q] = _mm512_adds_epu8(even[q], low_looked_up(tables[q][2 * p], bytes));
                odd[q] = _mm512_adds_epu8(odd[q], high_looked_up(tables[q][2 * p + 1], bytes));
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

// Loads 64 bytes once. Without the assembler statement, compilers load them again for each use.
TARGET inline __m512i loaded(const uint8_t* bytes) {
    __m512i value = _mm512_loadu_si512(bytes);
    __asm__("" : "+v"(value));
    return value;
}

// The wide sums of a block. A word of `both` is the sum of an even code plus 256 times that of the
// odd code behind it, modulo 2^16. This takes fewer instructions than the sums of even codes alone.
struct WideSums {
    __m512i both, odd;
};

TARGET inline __m512i even(const WideSums& sums) {
    return _mm512_sub_epi16(sums.both, _mm512_slli_epi16(sums.odd, 8));
}

// Adds the deficits of PLANES planes, at most PAIR, of B blocks for Q queries.
template <int PLANES, size_t Q, size_t B>
TARGET inline void add_planes(const uint8_t* blocks, size_t block_bytes,
                              const uint8_t* const (&tables)[Q], WideSums (&wide)[Q][B]) {
    __m512i sums[Q][B];
    for (int p = 0; p < PLANES; ++p) {
        __m512i low[Q], high[Q];
        for (size_t q = 0; q < Q; ++q) {
            low[q] = loaded(tables[q] + 2 * BLOCK * p);
            high[q] = loaded(tables[q] + 2 * BLOCK * p + BLOCK);
        }
        for (size_t b = 0; b < B; ++b) {
            const uint8_t* plane = blocks + b * block_bytes + p * BLOCK;
            _mm_prefetch(reinterpret_cast<const char*>(plane) + AHEAD, _MM_HINT_T0);
            const __m512i bytes = loaded(plane);
            for (size_t q = 0; q < Q; ++q) {
                const __m512i looked_up = low_looked_up(low[q], bytes);
                sums[q][b] = p ? _mm512_add_epi8(sums[q][b], looked_up) : looked_up;
                sums[q][b] = _mm512_add_epi8(sums[q][b], high_looked_up(high[q], bytes));
            }
        }
    }
    for (size_t q = 0; q < Q; ++q)
        for (size_t b = 0; b < B; ++b) {
            wide[q][b].both = _mm512_add_epi16(wide[q][b].both, sums[q][b]);
            wide[q][b].odd = _mm512_add_epi16(wide[q][b].odd, _mm512_srli_epi16(sums[q][b], 8));
        }
}

// Whether a code of B blocks is still within the cutoff of one of Q queries.
template <size_t Q, size_t B>
TARGET inline bool any_within(const WideSums (&wide)[Q][B], const Filtered* filtered) {
    __mmask32 within = 0;
    for (size_t q = 0; q < Q; ++q) {
        __m512i least = _mm512_min_epu16(even(wide[q][0]), wide[q][0].odd);
        for (size_t b = 1; b < B; ++b)
            least = _mm512_min_epu16(least, _mm512_min_epu16(even(wide[q][b]), wide[q][b].odd));
        within |= _mm512_cmple_epu16_mask(least, _mm512_set1_epi16(short(filtered[q].cutoff)));
    }
    return within != 0;
}

// Filters B blocks from `block` on for Q queries.
template <size_t Q, size_t B>
TARGET __attribute__((always_inline)) inline void filter_wide(const uint8_t* blocks, size_t block,
                                                              int planes, Filtered* filtered) {
    const size_t block_bytes = planes * BLOCK;
    const uint8_t* tables[Q];
    WideSums wide[Q][B];
    for (size_t q = 0; q < Q; ++q) {
        tables[q] = filtered[q].tables;
        const __m512i base = _mm512_set1_epi16(short(filtered[q].base));
        const __m512i both = _mm512_add_epi16(base, _mm512_slli_epi16(base, 8));
        for (size_t b = 0; b < B; ++b) wide[q][b] = {both, base};
    }
    blocks += block * block_bytes;
    int p = 0;
    for (; p + PAIR <= planes; p += PAIR, blocks += PAIR * BLOCK) {
        add_planes<PAIR>(blocks, block_bytes, tables, wide);
        for (size_t q = 0; q < Q; ++q) tables[q] += 2 * BLOCK * PAIR;
        if (p % CHECKED == CHECKED - PAIR && !any_within(wide, filtered)) return;
    }
    if (p < planes) add_planes<1>(blocks, block_bytes, tables, wide);
    for (size_t q = 0; q < Q; ++q)
        for (size_t b = 0; b < B; ++b) {
            const __m512i cutoff = _mm512_set1_epi16(short(filtered[q].cutoff));
            const __mmask32 evens = _mm512_cmple_epu16_mask(even(wide[q][b]), cutoff);
            const __mmask32 odds = _mm512_cmple_epu16_mask(wide[q][b].odd, cutoff);
            if (!(evens | odds)) continue;
            constexpr __mmask64 ODD = 0xaaaaaaaaaaaaaaaa;
            const uint64_t codes = _mm512_movepi8_mask(_mm512_mask_blend_epi8(
                ODD, _mm512_movm_epi16(evens), _mm512_movm_epi16(odds)));
            filtered[q].survivors[filtered[q].found++] = {codes, uint32_t(block + b)};
        }
}

template <size_t Q>
TARGET void run_wide(const uint8_t* blocks, size_t count, int planes, Filtered* filtered) {
    for (size_t q = 0; q < Q; ++q) filtered[q].found = 0;
    size_t b = 0;
    // The more blocks share the loads of tables the better, while their sums fit the registers.
    if constexpr (Q == 1)
        for (; b + 4 <= count; b += 4) filter_wide<Q, 4>(blocks, b, planes, filtered);
    for (; b + 2 <= count; b += 2) filter_wide<Q, 2>(blocks, b, planes, filtered);
    if (b < count) filter_wide<Q, 1>(blocks, b, planes, filtered);
}

using Run = void (*)(const uint8_t* blocks, size_t count, Filtered* filtered);

template <size_t Q>
constexpr Run BY_PLANES[NARROW / 2] = {run<1, Q>, run<2, Q>, run<3, Q>, run<4, Q>,
                                       run<5, Q>, run<6, Q>, run<7, Q>, run<8, Q>};

void choose(const uint8_t* blocks, size_t count, int planes, bool wide, Filtered* filtered,
            size_t queries) {
    if (wide) {
        for (; queries >= 2; queries -= 2, filtered += 2)
            run_wide<2>(blocks, count, planes, filtered);
        if (queries) run_wide<1>(blocks, count, planes, filtered);
        return;
    }
    for (; planes <= PAIRED && queries >= 2; queries -= 2, filtered += 2)
        BY_PLANES<2>[planes - 1](blocks, count, filtered);
    for (; queries; --queries, ++filtered) BY_PLANES<1>[planes - 1](blocks, count, filtered);
}

}  // namespace
}  // namespace gpq
