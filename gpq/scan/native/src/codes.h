// Codes in blocks, and whose they are: what a row or a score is to a position among them.
// masked: whether a mask may refuse a row of theirs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "eligible.h"
#include "query.h"
#include "segment.h"

namespace gpq {

// Where codes lie that have their dropped sub-codes in common.
struct Run {
    const uint8_t* blocks;
    int planes;
    int dropped;

    // Its bytes are BLOCK apart.
    const uint8_t* code(uint32_t position) const {
        return blocks + size_t(position / BLOCK) * planes * BLOCK + position % BLOCK;
    }
};

// Those of a segment.
struct SortedCodes {
    const Segment& segment;
    bool masked;
    uint16_t prefix(uint32_t position) const {
        return segment.prefixes[segment.group_of[position / BLOCK]];
    }
    void prefetch(uint32_t position) const {
        if (segment.starts.empty()) __builtin_prefetch(&segment.rows[position * segment.row_bytes]);
        else __builtin_prefetch(&segment.starts[position]);
    }
    uint32_t first_row(uint32_t position) const {
        const size_t begin = segment.rows_begin(position);
        return begin == segment.rows_end(position) ? NONE : segment.row(begin);
    }
    bool only_row(uint32_t position) const {
        return segment.rows_end(position) - segment.rows_begin(position) == 1;
    }
    void offer(const Eligible& eligible, Query& query, uint32_t position, float score) const {
        size_t i = segment.rows_begin(position);
        const size_t end = segment.rows_end(position);
        if (i < end && !eligible.hit({score, segment.row(i)}))
            i = first_later(eligible, i, end);
        for (; i < end; ++i) {
            const Hit hit = {score, segment.row(i)};
            if (!query.hits.admits(hit)) return;  // later rows come later in the order
            eligible.offer(query, hit);
        }
    }

  private:
    // Of rows from first to last, those of a position, the first that comes late enough.
    size_t first_later(const Eligible& eligible, size_t first, size_t last) const {
        while (first < last) {
            const size_t middle = first + (last - first) / 2;
            if (eligible.later(segment.row(middle))) last = middle;
            else first = middle + 1;
        }
        return first;
    }
};

// Those of some rows.
struct CodesOfRows {
    const uint32_t* rows;
    static constexpr bool masked = false;  // they are eligible
    uint16_t prefix(uint32_t) const { return 0; }
    void prefetch(uint32_t) const {}
    uint32_t first_row(uint32_t position) const { return rows[position]; }
    bool only_row(uint32_t) const { return true; }
    void offer(const Eligible& eligible, Query& query, uint32_t position, float score) const {
        eligible.offer(query, {score, rows[position]});
    }
};

// Those of a tail.
struct CodesByRow {
    uint32_t start;
    bool masked;
    uint16_t prefix(uint32_t) const { return 0; }
    void prefetch(uint32_t) const {}
    uint32_t first_row(uint32_t position) const { return start + position; }
    bool only_row(uint32_t) const { return true; }
    void offer(const Eligible& eligible, Query& query, uint32_t position, float score) const {
        eligible.offer(query, {score, start + position});
    }
};

}  // namespace gpq
