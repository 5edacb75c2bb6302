// Codes that no longer change, sorted: equal ones stand once, groups of like ones together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
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
    Buffer<uint8_t> blocks;          // (block_count, planes, 64)
    std::vector<uint16_t> group_of;  // of each block
    std::vector<uint16_t> prefixes;  // of each group, its dropped bytes
    std::vector<uint32_t> groups;    // first block of each group, and the end
    size_t row_bytes;                // of a number in rows: 3, or 4 where that is too few
    Buffer<uint8_t> rows;            // of each position; or all, where starts says whose
    Buffer<uint32_t> starts;         // of each position and the end: where its rows begin
    std::vector<Node> nodes;         // the first is the root
    // The code of each row from first_row on, zeros where it has none here; empty in a segment
    // that finds no rows.
    Buffer<uint8_t> by_row;  // (…, ceil(M/2))

    // The rows of a position, ascending, are those from the first of these numbers to the second.
    size_t rows_begin(uint32_t position) const {
        return starts.empty() ? position : starts[position];
    }
    size_t rows_end(uint32_t position) const {
        return starts.empty() ? position + (row(position) != NONE) : starts[position + 1];
    }
    uint32_t row(size_t i) const {
        uint32_t number;  // a Buffer can be read beyond its end
        std::memcpy(&number, rows.data() + i * row_bytes, sizeof number);
        number &= no_row();
        return number == no_row() ? NONE : first_row + number;
    }
    uint32_t no_row() const { return NONE >> (32 - 8 * row_bytes); }

    const uint8_t* code_of(uint32_t row) const { return by_row.data() + (row - first_row) * width(); }
    // Codes of rows in blocks (…, ceil(M/2), 64).
    void gather(const uint32_t* rows, size_t count, uint8_t* blocks) const;

    size_t width() const { return size_t(M + 1) / 2; }
    size_t bytes() const;
};

// packed (count, ceil(M/2)), low nibble = even sub-code, of the rows (count), ascending. Without
// find_rows it finds none of them. Throws std::bad_alloc.
Segment* build_segment(const uint8_t* packed, const uint32_t* rows, size_t count, int M,
                       bool find_rows);

}  // namespace gpq
