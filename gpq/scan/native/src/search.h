// Finds the exact k best hits in a snapshot.
#pragma once

#include <cstddef>
#include <cstdint>

#include "filter.h"
#include "segment.h"

namespace gpq {

// Unsorted codes in the order of their rows: blocks (…, ceil(M/2), 64).
struct Tail {
    const uint8_t* blocks;
    uint32_t first_row;
    uint32_t count;
};

// removed: one bit for each row, or null if no row is removed.
// mask: one byte for each row, or null if all rows are eligible. Rows from mask_rows on are not
// eligible. Rows before mask_from need no check, because the segments hold only eligible rows.
// after: if has_after is not 0, only hits that follow this score and row in the order of hits.
// part: the part of the codes to search, of `parts`; each code is in one part.
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
    int64_t* rows;  // (queries, k), -1 for missing hits
    float* scores;  // (queries, k), -inf for missing hits
};

// Searches, and returns true. Returns false and writes nothing if a score could be infinite or NaN.
// Throws std::bad_alloc.
bool search(const Request& request, Filter filter);

}  // namespace gpq
