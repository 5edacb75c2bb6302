// Codes that no longer change, sorted: equal ones stand once, groups of like ones together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "filter.h"

namespace gpq {

constexpr uint32_t NONE = 0xffffffff;

// A prefix of sub-codes and the positions of the codes that begin with it. The children of a
// node have one sub-code more each and stand beside each other; a leaf has none.
struct Node {
    uint32_t first, last;  // positions
    uint32_t child;
    uint8_t children;
    uint8_t code;  // the last sub-code of the prefix
};

// A position is a place among the blocks. Codes are in lexicographic order of their sub-codes.
// The first `dropped` bytes of a code are not stored but once a group, which begins with a
// block of its own; positions between groups are empty.
struct Segment {
    int M;
    int dropped;  // bytes, of two sub-codes each
    int planes;   // bytes that are stored
    uint32_t first_row, last_row;
    size_t block_count;
    Buffer<uint8_t> blocks;                     // (block_count, planes, 64)
    std::vector<uint16_t> group_of;    // of each block
    std::vector<uint16_t> prefixes;    // of each group, its dropped bytes
    std::vector<uint32_t> groups;      // first block of each group, and the end
    Buffer<uint32_t> rows;        // of each position; or all, where starts says whose
    Buffer<uint32_t> starts;      // of each position and the end: where its rows begin
    Buffer<uint32_t> positions;   // of each row from first_row on, or NONE; or none at all
    std::vector<Node> nodes;           // the first is the root

    // Rows of a position, ascending.
    const uint32_t* rows_begin(uint32_t position) const {
        return rows.data() + (starts.empty() ? position : starts[position]);
    }
    const uint32_t* rows_end(uint32_t position) const {
        if (!starts.empty()) return rows.data() + starts[position + 1];
        return rows_begin(position) + (rows[position] != NONE);
    }

    void code_at(uint32_t position, uint8_t* packed) const;
    size_t bytes() const;
};

// packed (count, ceil(M/2)), low nibble = even sub-code, of the rows (count), ascending. Without
// find_rows there are no positions. Throws std::bad_alloc.
Segment* build_segment(const uint8_t* packed, const uint32_t* rows, size_t count, int M,
                       bool find_rows);

}  // namespace gpq
