// Says which rows and scores a search may find.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hits.h"
#include "mask.h"
#include "query.h"
#include "search.h"

namespace gpq {

class Eligible {
  public:
    explicit Eligible(const Request& r) : r_(r) {}

    bool row(uint32_t row) const {
        if (r_.removed && r_.removed[row / 64] >> row % 64 & 1) return false;
        return !r_.mask || row < r_.mask_from || (row < r_.mask_rows && r_.mask[row]);
    }
    // Whether the mask can exclude a row before last_row.
    bool masked(uint32_t last_row) const { return r_.mask && last_row > r_.mask_from; }
    void prefetch(uint32_t row) const {
        if (row < r_.mask_rows) __builtin_prefetch(r_.mask + row);
    }
    // Finds the eligible rows from first to last, in at most STRETCH blocks of 64 rows. Writes the
    // blocks that have some to `left`, and returns their number.
    static constexpr size_t STRETCH = 64;
    size_t rows(uint64_t first, uint64_t last, Survivors (&left)[STRETCH]) const {
        last = std::min(last, r_.mask_rows);
        if (first >= last) return 0;
        const uint64_t begin = first / BLOCK, whole = last / BLOCK, rest = last % BLOCK;
        uint64_t bits[STRETCH];
        if (whole > begin) set_bits(r_.mask + begin * BLOCK, whole - begin, bits);
        if (rest) bits[whole - begin] = set_bits(r_.mask + whole * BLOCK, size_t(rest));
        bits[0] &= ~uint64_t(0) << first % BLOCK;
        size_t found = 0;
        for (uint64_t block = begin; block < whole + (rest != 0); ++block) {
            const uint64_t removed = r_.removed ? r_.removed[block] : 0;
            left[found] = {bits[block - begin] & ~removed, uint32_t(block)};
            found += left[found].codes != 0;
        }
        return found;
    }
    bool hit(const Hit& hit) const {
        if (!r_.has_after || hit.score < r_.after_score) return true;
        return hit.score == r_.after_score && later(hit.row);
    }
    // Whether a row with the score after_score follows after_row.
    bool later(uint32_t row) const { return int64_t(row) > r_.after_row; }
    bool score(float score) const { return !r_.has_after || score <= r_.after_score; }
    void offer(Query& query, const Hit& hit) const {
        if (query.hits.admits(hit) && row(hit.row) && this->hit(hit)) query.hits.offer(hit);
    }

  private:
    const Request& r_;
};

}  // namespace gpq
