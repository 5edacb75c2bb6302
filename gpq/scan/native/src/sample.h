// What a mask leaves of some blocks of rows, and so presumably of all.
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
    // Of the rows before end, which is not 0, in search of the k best.
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

    // Of all rows, those that are eligible.
    double share() const { return share_; }

    // The blocks that have eligible rows.
    const std::vector<Survivors>& blocks() const { return blocks_; }

    // In how many of them hits should be that are as good as the k best of all: some more than
    // k in one block of so many, so that hardly ever there are fewer than k as good ones. Of a
    // block only the best hit counts: those beside each other are often alike.
    size_t expected() const { return expected_; }

    // How many of all eligible rows should be as good as that.
    double reaching() const { return double(expected_) * double(step_); }

    // What they reach, of the hits among rows(), in order; -inf where there are too few.
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

    // The eligible ones from first to last.
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
#if defined(GPQ_SMALL)  // so that little data sees everything, and expects too much now and then
    static constexpr size_t BLOCKS = 20, ROWS = 200, LEAST_STEP = 3;
    static constexpr double DEVIATIONS = 0;
#else
    static constexpr size_t BLOCKS = 256;     // looked at for their share
    static constexpr size_t ROWS = 1024;      // looked at for their codes, about
    static constexpr size_t LEAST_STEP = 15;  // from a block to the next
    static constexpr double DEVIATIONS = 2.5;
#endif

    // Leaves one block in so many.
    void thin_out(size_t n) {
        size_t kept = 0;
        for (size_t i = 0; i < blocks_.size(); i += n) blocks_[kept++] = blocks_[i];
        blocks_.resize(kept);
        step_ *= n;
    }

    size_t step_;  // from one of blocks_ to the next; odd at first, so that no pattern of rows
                   // is hit or missed as a whole
    double share_;
    size_t expected_;
    std::vector<Survivors> blocks_;
};

}  // namespace gpq
