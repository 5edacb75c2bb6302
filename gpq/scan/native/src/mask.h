// Converts masks, which have one byte for each row, to bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpq {

// Writes one word for each 64 bytes; a bit is 1 if its byte is not 0.
void set_bits(const uint8_t* bytes, size_t words, uint64_t* bits);

// Returns the word of `count` bytes, at most 64.
uint64_t set_bits(const uint8_t* bytes, size_t count);

// Returns the number of bits that are 1. The popcnt instruction is not in the x86-64 baseline, and
// the compiler's builtin would call a slower function.
inline size_t count_bits(uint64_t bits) {
    bits -= bits >> 1 & 0x5555555555555555;
    bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
    return size_t(((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

}  // namespace gpq
