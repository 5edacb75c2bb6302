// Which codes of a block can still reach the k-th score.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpq {

constexpr size_t BLOCK = 64;  // codes in a block, one bit each of a survivors' word
constexpr int CUTOFF = 254;   // largest sum of quantised deficits that survives

// Of a block, those of its codes that are left: bit i for code i.
struct Survivors {
    uint64_t codes;
    uint32_t block;
};

// What a query leaves of some blocks.
struct Filtered {
    const uint8_t* tables;  // (planes, 2, 16) quantised deficits
    uint8_t base;           // added to the sum of every code
    Survivors* survivors;   // room for one a block
    size_t found;           // how many blocks have some; written
};
constexpr size_t TOGETHER = 4;  // queries, at most, that share the work of reading blocks

// blocks: count times (planes, 64) bytes, low nibble = even sub-code.
// A code survives where base + its deficits, saturating at 255, are at most CUTOFF.
// queries: at most TOGETHER.
using Filter = void (*)(const uint8_t* blocks, size_t count, int planes, Filtered* filtered,
                        size_t queries);

// Each is null where the compiler or the processor lacks the instructions.
Filter filter_avx512vbmi();
Filter filter_avx512();
Filter filter_avx2();
Filter filter_neon();
Filter filter_portable();

// The fastest of these, or the one called name ("avx512vbmi", "avx512", "avx2", "neon",
// "portable"); null where there is none.
Filter find_filter(const char* name);
const char* name_of(Filter filter);

}  // namespace gpq
