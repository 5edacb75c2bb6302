// Sorted codes that never change. Equal codes are stored once, and similar codes form groups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffer.h"
#include "filter.h"

namespace gpq {

constexpr uint32_t NONE = 0xffffffff;

// A prefix of sub-codes, and the positions of the codes that begin with it. The prefixes of its
// children have one more sub-code, and the children are adjacent. A leaf has no children.
struct Node {
    uint32_t first, last;  // positions
    uint32_t child;
    uint8_t children;
    uint8_t code;  // the last sub-code of the prefix
};

// A position is the place of a code in the blocks. Codes are in lexicographic order of their
// sub-codes. Codes with the same first `dropped` bytes form a group, which stores these bytes once.
// Each group begins with a new block, so that positions behind the end of a group may be empty.
struct Segment {
    int M;
    int dropped;  // bytes of a code that are stored once for a group
    int planes;   // bytes of a code that are stored for each code
    uint32_t first_row, last_row;
    size_t block_count;
    Buffer<uint8_t> blocks;          // (block_count, planes, 64)
    std::vector<uint16_t> group_of;  // of each block
    std::vector<uint16_t> prefixes;  // of each group: its dropped bytes
    std::vector<uint32_t> groups;    // first block of each group, and the end
    size_t row_bytes;                // bytes of a number in rows: 3, or 4 if 3 are too few
    Buffer<uint8_t> rows;            // rows in order of positions; without starts, one for each
    Buffer<uint32_t> starts;         // index in rows of each position's first, and the end; or empty
    std::vector<Node> nodes;         // the first is the root
    // (…, ceil(M/2)): the code of each row from first_row on, or 0 if the segment lacks the row.
    // Empty in a segment that was built without find_rows.
    Buffer<uint8_t> by_row;

    // The rows of a position, in ascending order, are row(i) from rows_begin() to rows_end().
    size_t rows_begin(uint32_t position) const {
        return starts.empty() ? position : starts[position];
    }
    size_t rows_end(uint32_t position) const {
        return starts.empty() ? position + (row(position) != NONE) : starts[position + 1];
    }
    uint32_t row(size_t i) const {
        uint32_t number;  // may include bytes behind the end, which a Buffer allows
        std::memcpy(&number, rows.data() + i * row_bytes, sizeof number);
        number &= no_row();
        return number == no_row() ? NONE : first_row + number;
    }
    uint32_t no_row() const { return NONE >> (32 - 8 * row_bytes); }

    const uint8_t* code_of(uint32_t row) const { return by_row.data() + (row - first_row) * width(); }
    // Writes the codes of rows to blocks (…, ceil(M/2), 64).
    void gather(const uint32_t* rows, size_t count, uint8_t* blocks) const;

    size_t width() const { return size_t(M + 1) / 2; }
    size_t bytes() const;
};

// Sorts codes into a segment. Throws std::bad_alloc.
// packed: (count, ceil(M/2)), the low nibble is the even sub-code. rows: (count), ascending.
// find_rows: whether code_of() and gather() can be used.
Segment* build_segment(const uint8_t* packed, const uint32_t* rows, size_t count, int M,
                       bool find_rows);

}  // namespace gpq
