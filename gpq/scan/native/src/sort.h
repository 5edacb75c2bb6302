#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gpq {

// (count, width) packed codes -> their numbers in lexicographic order of sub-codes; equal
// codes in order of their numbers. Throws std::bad_alloc.
std::vector<uint32_t> sorted_order(const uint8_t* packed, size_t count, size_t width);

// The bytes in an order that compares like the sub-codes: the even one is in the low nibble.
inline uint8_t swapped(uint8_t byte) { return static_cast<uint8_t>(byte << 4 | byte >> 4); }

}  // namespace gpq
