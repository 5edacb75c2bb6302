// The exact k best of a snapshot.
#pragma once

#include <cstddef>
#include <cstdint>

#include "filter.h"
#include "segment.h"

namespace gpq {

// Codes in order of their rows, not sorted yet: blocks (…, ceil(M/2), 64).
struct Tail {
    const uint8_t* blocks;
    uint32_t first_row;
    uint32_t count;
};

// removed: a bit a row, or null for none. mask: a byte a row, or null for all; rows from mask_rows on are not
// eligible then, and rows before mask_from are: segments end there that hold no others.
// after: only hits later in the order than this, where has_after is not 0.
// part: only the hits of this of so many parts of the codes; a code is in one of them.
struct Request {
    const Segment* const* segments;
    size_t segment_count;
    const Tail* tails;
    size_t tail_count;
    int M;
    const float* luts;  // (queries, M, 16)
    size_t queries;
    size_t k;
    size_t part;
    size_t parts;
    const uint64_t* removed;
    const uint8_t* mask;
    uint64_t mask_rows;
    uint64_t mask_from;
    int has_after;
    float after_score;
    int64_t after_row;
    int64_t* rows;  // (queries, k), -1 where there are no more
    float* scores;  // (queries, k), -inf there
};

// False, and nothing written, where a score could be infinite or no number. Throws
// std::bad_alloc.
bool search(const Request& request, Filter filter);

}  // namespace gpq
