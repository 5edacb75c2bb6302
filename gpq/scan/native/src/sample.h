// Samples blocks of rows to estimate how many rows a mask leaves eligible, and which score the k
// best of them reach.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "eligible.h"
#include "filter.h"
#include "hits.h"
#include "mask.h"

namespace gpq {

class Sample {
  public:
    // Samples the rows before end, which is not 0, for a search for the k best.
    Sample(const Eligible& eligible, uint32_t end, size_t k) {
        const size_t count = (size_t(end) + BLOCK - 1) / BLOCK;
        step_ = std::max(LEAST_STEP, count / BLOCKS) | 1;
        size_t seen = 0, left = 0;
        for (size_t block = step_ / 2; block < count; block += step_) {
            Survivors rows[Eligible::STRETCH];
            const size_t last = std::min<size_t>(end, (block + 1) * BLOCK);
            seen += last - block * BLOCK;
            if (!eligible.rows(block * BLOCK, last, rows)) continue;
            left += count_bits(rows[0].codes);
            blocks_.push_back(rows[0]);
        }
        share_ = seen ? double(left) / double(seen) : 1;
        thin_out(left / ROWS + 1);
        const double mean = double(k) / double(step_);
        expected_ = size_t(std::ceil(mean + DEVIATIONS * (std::sqrt(mean) + 1)));
    }

    // The estimated share of eligible rows among all rows.
    double share() const { return share_; }

    // The sampled blocks that have eligible rows.
    const std::vector<Survivors>& blocks() const { return blocks_; }

    // The number of sampled blocks in which to look for the threshold: a few more than would have
    // one of the k best hits, so that hardly ever fewer than k hits reach the threshold. Only the
    // best hit of a block counts, because neighbouring rows are often alike.
    size_t expected() const { return expected_; }

    // The estimated number of all eligible rows that reach the threshold.
    double expected_rows() const { return double(expected_) * double(step_); }

    // Returns the score that the best hits of expected() blocks reach, or -inf if there are fewer
    // blocks with hits. hits: the hits among rows(), in order.
    float score(const std::vector<Hit>& hits) const {
        std::vector<uint32_t> seen;
        for (const Hit& hit : hits) {
            const uint32_t block = hit.row / BLOCK;
            if (std::find(seen.begin(), seen.end(), block) != seen.end()) continue;
            seen.push_back(block);
            if (seen.size() == expected_) return hit.score;
        }
        return -std::numeric_limits<float>::infinity();
    }

    // Returns the sampled eligible rows from first to last.
    std::vector<uint32_t> rows(uint32_t first, uint32_t last) const {
        std::vector<uint32_t> rows;
        for (const Survivors& block : blocks_)
            for (uint64_t left = block.codes; left; left &= left - 1) {
                const uint32_t row = uint32_t(block.block * BLOCK + __builtin_ctzll(left));
                if (row >= first && row < last) rows.push_back(row);
            }
        return rows;
    }

  private:
#if defined(GPQ_SMALL)  // small, so that little data reaches every branch and sometimes misleads
    static constexpr size_t BLOCKS = 20, ROWS = 200, LEAST_STEP = 3;
    static constexpr double DEVIATIONS = 0;
#else
    static constexpr size_t BLOCKS = 256;      // blocks whose share of eligible rows is counted
    static constexpr size_t ROWS = 1024;       // eligible rows that are scored, about
    static constexpr size_t LEAST_STEP = 15;   // from one sampled block to the next, at least
    static constexpr double DEVIATIONS = 2.5;  // standard deviations added to the expected blocks
#endif

    // Keeps every n-th block.
    void thin_out(size_t n) {
        size_t kept = 0;
        for (size_t i = 0; i < blocks_.size(); i += n) blocks_[kept++] = blocks_[i];
        blocks_.resize(kept);
        step_ *= n;
    }

    size_t step_;  // from one of blocks_ to the next; odd at first, so that the sample does not
                   // hit or miss a periodic pattern of rows as a whole
    double share_;
    size_t expected_;
    std::vector<Survivors> blocks_;
};

}  // namespace gpq
