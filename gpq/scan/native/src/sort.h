// Sorts packed codes in the order of their sub-codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gpq {

// Returns the numbers of packed codes (count, width) in lexicographic order of sub-codes. Equal
// codes are in order of their numbers. Throws std::bad_alloc.
std::vector<uint32_t> sorted_order(const uint8_t* packed, size_t count, size_t width);

// Swaps the nibbles of a byte, so that it compares like its sub-codes: the even one comes first.
inline uint8_t swapped(uint8_t byte) { return static_cast<uint8_t>(byte << 4 | byte >> 4); }

}  // namespace gpq
