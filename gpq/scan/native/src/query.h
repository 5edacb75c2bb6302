// The state of one query during a search: its look-up table, its hits and its threshold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "hits.h"
#include "segment.h"

namespace gpq {

constexpr int K = 16;

// A deficit is the difference between the largest possible score, Σ_m max LUT[m], and a score. It
// is a double, whose rounding error the margin covers.
class Query {
  public:
    // lut: (M,K). If it is not finite(), no other function may be called.
    Query(const float* lut, int M, size_t k);

    // Whether all values of the table, and all sums of them, are finite.
    bool finite() const {
        return finite_ && magnitude_ <= double(std::numeric_limits<float>::max());
    }

    Hits hits;
    std::vector<uint32_t> surviving;  // positions that survived the filter and are not yet scored

    // A score below it is not a hit; -inf while any score may be a hit.
    float threshold() const { return std::max(floor_, hits.threshold()); }
    bool selective() const { return threshold() > -std::numeric_limits<float>::infinity(); }

    // Starts again, with the threshold that k hits have reached so far.
    void restart() {
        floor_ = threshold();
        hits.clear();
    }
    // Assumes that k hits reach a score. At the end of a search, assumption_held() says whether
    // they did.
    void assume(float score) { floor_ = score; }
    bool assumption_held() const { return !selective() || hits.full(); }
    // Starts again, without any assumption.
    void reset() {
        floor_ = -std::numeric_limits<float>::infinity();
        scale_ = 0;
        chunked_ = 0;
        hits.clear();
    }

    // The largest deficit of a hit. A code with a larger deficit cannot reach the threshold.
    double limit() const { return sum_of_maxima_ - double(threshold()) + margin_; }

    // The number of blocks to filter with one threshold: few at first, while it rises fast.
    static constexpr size_t CHUNK = 128;
    size_t next_chunk() {
        const size_t chunk = std::min(CHUNK, 1 + chunked_ / 4);
        chunked_ += chunk;
        return chunk;
    }

    double deficit(int m, int code) const { return deficits_[m * K + code]; }
    float value(int m, int code) const { return lut_[m * K + code]; }

    // The float32 sum and the deficit of the sub-codes in a prefix of `bytes` bytes.
    float partial_score(uint16_t prefix, int bytes) const;
    double partial_deficit(uint16_t prefix, int bytes) const;

    // Adds the sub-codes behind the dropped ones, in order, to each of COUNT scores.
    template <size_t COUNT>
    void add_scores(const uint8_t* const (&bytes)[COUNT], int planes, int dropped,
                    float (&scores)[COUNT]) const {
        const float* even = lut_ + 2 * dropped * K;
        const int whole = M_ / 2 - dropped;  // planes with two sub-codes
        for (int p = 0; p < whole; ++p, even += 2 * K) {
            const float* odd = even + K;
            // With two loops, GCC would pack the scores into vectors and unpack them.
            for (size_t i = 0; i < COUNT; ++i) {
                const size_t byte = bytes[i][p * BLOCK];
                scores[i] += even[byte & 15];
                scores[i] += odd[byte >> 4];
            }
        }
        if (whole == planes) return;
        for (size_t i = 0; i < COUNT; ++i) scores[i] += even[bytes[i][whole * BLOCK] & 15];
    }

    // Whether the sums of its quantised deficits are wide.
    bool wide() const { return M_ > NARROW; }
    // Returns the quantised deficits behind the dropped bytes, for Filtered::tables. They are
    // rounded down, so that no code within the limit is lost.
    const uint8_t* quantised(int dropped);
    // Returns one deficit in the same units, for Filtered::base.
    uint16_t base(double deficit) const {
        return static_cast<uint16_t>(std::min(wide() ? MOST_BASE : 255.0, deficit * scale_));
    }
    // Returns the limit in the same units, for Filtered::cutoff.
    uint16_t cutoff() const;

  private:
    size_t row_bytes() const { return wide() ? COPIES * K : K; }  // of tables_
    // Returns the scale of the deficits for the present limit.
    double finest_scale() const;

    const float* lut_;
    int M_;
    double sum_of_maxima_ = 0;
    bool finite_ = true;    // whether all values of the table are finite
    double magnitude_ = 0;  // bound of the absolute value of a score
    double margin_ = 0;     // bound of the rounding error of a score
    float floor_ = -std::numeric_limits<float>::infinity();
    size_t chunked_ = 0;
    double scale_ = 0;              // of tables_; 0 before they are computed
    double largest_ = 0;            // the largest of deficits_
    std::vector<double> deficits_;  // (M,K)
    Buffer<uint8_t> tables_;        // see Filtered::tables
};

}  // namespace gpq
