// Filters that drop the codes of a block whose score cannot reach the k-th best.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpq {

constexpr size_t BLOCK = 64;  // codes in a block, each of which has a bit in Survivors::codes
constexpr int CUTOFF = 254;   // largest sum of quantised deficits that survives, in 8 bits

// Codes of more sub-codes than NARROW have wide sums, of 16 bits. In 8 bits, their deficits would
// lose so much by rounding down that many codes survive. The deficits are at most LARGEST, so that
// those of PAIR planes can be added in 8 bits before they are added to a wide sum.
constexpr int NARROW = 16;
constexpr int PAIR = 2;
constexpr int LARGEST = 255 / (2 * PAIR);
constexpr int MOST_BASE = 32767;  // leaves room for the deficits of all sub-codes
constexpr size_t COPIES = 4;      // of each row in tables of wide sums, to load 64 bytes at once
// After so many planes, and again after so many more, a filter may drop blocks without survivors.
constexpr int CHECKED = 8;

// The codes of a block that survive: bit i for code i.
struct Survivors {
    uint64_t codes;
    uint32_t block;
};

// The arguments and the result of a filter for one query.
struct Filtered {
    const uint8_t* tables;  // (planes, 2, 16) quantised deficits; (planes, 2, COPIES, 16) if wide
    uint16_t base;          // added to the sum of every code; at most 255, or MOST_BASE if wide
    uint16_t cutoff;        // largest sum that survives; CUTOFF if not wide
    Survivors* survivors;   // has room for all blocks; the filter writes blocks with survivors
    size_t found;           // number of blocks with survivors, which the filter writes
};
constexpr size_t MOST_QUERIES = 4;  // queries that share the work of reading blocks, at most

// Filters codes for several queries, at most MOST_QUERIES.
// blocks: (count, planes, 64) bytes; the low nibble is the even sub-code.
// wide: whether the sums are wide; other sums saturate at 255.
// A code survives if base plus its deficits is at most cutoff.
using Filter = void (*)(const uint8_t* blocks, size_t count, int planes, bool wide,
                        Filtered* filtered, size_t queries);

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
