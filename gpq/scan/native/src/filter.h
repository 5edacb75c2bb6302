// Filters that drop the codes of a block whose score cannot reach the k-th best.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpq {

constexpr size_t BLOCK = 64;  // codes in a block, each of which has a bit in Survivors::codes
constexpr int CUTOFF = 254;   // largest sum of quantised deficits that survives

// The codes of a block that survive: bit i for code i.
struct Survivors {
    uint64_t codes;
    uint32_t block;
};

// The arguments and the result of a filter for one query.
struct Filtered {
    const uint8_t* tables;  // (planes, 2, 16) quantised deficits
    uint8_t base;           // added to the sum of every code
    Survivors* survivors;   // has room for all blocks; the filter writes blocks with survivors
    size_t found;           // number of blocks with survivors, which the filter writes
};
constexpr size_t MOST_QUERIES = 4;  // queries that share the work of reading blocks, at most

// Filters codes for several queries, at most MOST_QUERIES.
// blocks: (count, planes, 64) bytes; the low nibble is the even sub-code.
// A code survives if base plus its deficits, saturating at 255, is at most CUTOFF.
using Filter = void (*)(const uint8_t* blocks, size_t count, int planes, Filtered* filtered,
                        size_t queries);

// Each returns null if the compiler or the processor lacks the instructions.
Filter filter_avx512vbmi();
Filter filter_avx512();
Filter filter_avx2();
Filter filter_neon();
Filter filter_portable();

// Returns the filter called name ("avx512vbmi", "avx512", "avx2", "neon", "portable"), or the
// fastest if name is "". Returns null if it is not available.
Filter find_filter(const char* name);
const char* name_of(Filter filter);

}  // namespace gpq
