// Views of codes in blocks, which map the position of a code to its rows.
//
// Every view has the same members. masked: whether a mask may exclude one of its rows. batch: the
// survivors to collect before they are scored. prefix: the dropped sub-codes at a position.
// prefetch, first_row, only_row: the rows at a position. offer: offers the rows at a position to a
// query as hits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "eligible.h"
#include "query.h"
#include "segment.h"

namespace gpq {

// Scoring several survivors at once is faster. If they are first checked against a mask, which goes
// far away in memory, it takes more of them.
#if defined(GPQ_SMALL)  // small, so that little data reaches every branch
constexpr size_t BATCH = 5, MASKED_BATCH = 7;
#else
constexpr size_t BATCH = 24, MASKED_BATCH = 128;
#endif

// Codes in blocks that do not store their first `dropped` bytes.
struct Run {
    const uint8_t* blocks;
    int planes;
    int dropped;

    // Returns the first byte of a code. The bytes of a code are BLOCK apart.
    const uint8_t* code(uint32_t position) const {
        return blocks + size_t(position / BLOCK) * planes * BLOCK + position % BLOCK;
    }
};

// The codes of a segment.
struct SortedCodes {
    const Segment& segment;
    bool masked;
    size_t batch() const { return masked ? MASKED_BATCH : BATCH; }
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
            if (!query.hits.admits(hit)) return;  // later rows are worse
            eligible.offer(query, hit);
        }
    }

  private:
    // Returns the first of a position's rows, from first to last, that follows Request::after_row.
    size_t first_later(const Eligible& eligible, size_t first, size_t last) const {
        while (first < last) {
            const size_t middle = first + (last - first) / 2;
            if (eligible.later(segment.row(middle))) last = middle;
            else first = middle + 1;
        }
        return first;
    }
};

// Codes that were gathered for eligible rows.
struct CodesOfRows {
    const uint32_t* rows;
    static constexpr bool masked = false;  // all rows are eligible
    size_t batch() const { return 1; }  // the codes are soon replaced by others
    uint16_t prefix(uint32_t) const { return 0; }
    void prefetch(uint32_t) const {}
    uint32_t first_row(uint32_t position) const { return rows[position]; }
    bool only_row(uint32_t) const { return true; }
    void offer(const Eligible& eligible, Query& query, uint32_t position, float score) const {
        eligible.offer(query, {score, rows[position]});
    }
};

// The codes of a tail, in order of their rows.
struct CodesByRow {
    uint32_t start;
    bool masked;
    size_t batch() const { return masked ? MASKED_BATCH : BATCH; }
    uint16_t prefix(uint32_t) const { return 0; }
    void prefetch(uint32_t) const {}
    uint32_t first_row(uint32_t position) const { return start + position; }
    bool only_row(uint32_t) const { return true; }
    void offer(const Eligible& eligible, Query& query, uint32_t position, float score) const {
        eligible.offer(query, {score, start + position});
    }
};

}  // namespace gpq
