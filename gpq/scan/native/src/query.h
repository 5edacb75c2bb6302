// One query on its way through the codes: its table, its hits, and how near they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hits.h"
#include "segment.h"

namespace gpq {

constexpr int K = 16;

// A deficit is how far a sum lies below the largest there is, Σ_m max LUT[m]: a double, as
// near to the truth as the margin below allows for.
class Query {
  public:
    // lut (M,K); where it is not finite(), nothing else may be called.
    Query(const float* lut, int M, size_t k);

    // True where every score is, too.
    bool finite() const {
        return finite_ && magnitude_ <= double(std::numeric_limits<float>::max());
    }

    Hits hits;
    std::vector<uint32_t> surviving;  // positions that the filter has left and nothing else has seen

    // Scores below it are no hits; -inf while any may be one.
    float threshold() const { return std::max(floor_, hits.threshold()); }
    bool selective() const { return threshold() > -std::numeric_limits<float>::infinity(); }

    // Begin anew, knowing that k hits reach what the k-th has reached so far.
    void restart() {
        floor_ = threshold();
        hits.clear();
    }
    // k hits should reach this score; whether they do is known at the end.
    void suppose(float score) { floor_ = score; }
    bool supposed_rightly() const { return !selective() || hits.enough(); }
    // Begin anew, supposing nothing.
    void forget() {
        floor_ = -std::numeric_limits<float>::infinity();
        quantised_for_ = -1;
        chunked_ = 0;
        hits.clear();
    }

    // The largest deficit of a hit; what is above it cannot reach the threshold.
    double limit() const { return sum_of_maxima_ - double(threshold()) + margin_; }

    // Blocks to filter with one threshold: few at first, while it still rises fast.
    static constexpr size_t CHUNK = 128;
    size_t next_chunk() {
        const size_t chunk = std::min(CHUNK, 1 + chunked_ / 4);
        chunked_ += chunk;
        return chunk;
    }

    double deficit(int m, int code) const { return deficits_[m * K + code]; }
    float value(int m, int code) const { return lut_[m * K + code]; }

    // Of the first sub-codes of a prefix, in its bytes: their float32 sum, and their deficit.
    float partial_score(uint16_t prefix, int bytes) const;
    double partial_deficit(uint16_t prefix, int bytes) const;

    // To each of COUNT scores the rest of the sub-codes of a code, in order.
    template <size_t COUNT>
    void add_scores(const uint8_t* const (&bytes)[COUNT], int planes, int dropped,
                    float (&scores)[COUNT]) const {
        const float* table = lut_ + 2 * dropped * K;
        for (int p = 0; p < planes; ++p, table += 2 * K) {
            const bool odd = 2 * (dropped + p) + 1 < M_;
            for (size_t i = 0; i < COUNT; ++i) scores[i] += table[bytes[i][p * BLOCK] & 15];
            if (!odd) continue;
            for (size_t i = 0; i < COUNT; ++i) scores[i] += table[K + (bytes[i][p * BLOCK] >> 4)];
        }
    }

    // Quantised deficits (ceil(M/2), 2, K), so fine that the limit is CUTOFF of them. Rounded
    // down, so that nothing within the limit is lost.
    const uint8_t* quantised();
    // A deficit in the same units: at most 255.
    uint8_t quantised(double deficit) const {
        return static_cast<uint8_t>(std::min(255.0, deficit * scale_));
    }

  private:
    const float* lut_;
    int M_;
    double sum_of_maxima_ = 0;
    bool finite_ = true;    // all of the table
    double magnitude_ = 0;  // of the largest score there could be
    double margin_ = 0;
    float floor_ = -std::numeric_limits<float>::infinity();
    size_t chunked_ = 0;
    double quantised_for_ = -1;  // the limit that scale_ and tables_ are for
    double scale_ = 0;
    std::vector<double> deficits_;  // (M,K)
    std::vector<uint8_t> tables_;
};

}  // namespace gpq
