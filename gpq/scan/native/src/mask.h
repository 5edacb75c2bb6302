// A byte a row: which rows are eligible.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpq {

// Words of a bit for each of 64 bytes, where it is not 0.
void set_bits(const uint8_t* bytes, size_t words, uint64_t* bits);

// The same of at most 64 bytes.
uint64_t set_bits(const uint8_t* bytes, size_t count);

// Calls for some processors' instruction would be slower: it is not of the least of them.
inline size_t count_bits(uint64_t bits) {
    bits -= bits >> 1 & 0x5555555555555555;
    bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
    return size_t(((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

}  // namespace gpq
