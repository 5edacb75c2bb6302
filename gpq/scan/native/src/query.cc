#include "query.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gpq {
namespace {

constexpr double WORTH_REFINING = 0.98;  // tables are renewed if their scale falls below this share
constexpr double SMALLEST = 1e-300;      // avoids a division by zero if all scores are equal
// In tables of wide sums, larger deficits than so many times the average within the limit are cut,
// as few of them exclude a code. So rounding down takes 6 % of the limit at most, on average.
constexpr double STEEP = 8;
constexpr double ROUNDED_DOWN = 1 - 1e-9, ROUNDED_UP = 1 + 1e-8;

}  // namespace

Query::Query(const float* lut, int M, size_t k)
    : hits(k), lut_(lut), M_(M), deficits_(size_t(M) * K),
      tables_(size_t(M + 1) / 2 * 2 * row_bytes()) {
    for (int m = 0; m < M; ++m) {
        const float* row = lut + m * K;
        float high = row[0];
        double largest = 0;
        for (int c = 0; c < K; ++c) {
            high = std::max(high, row[c]);
            largest = std::max(largest, std::fabs(double(row[c])));
            finite_ = finite_ && std::isfinite(row[c]);
        }
        for (int c = 0; c < K; ++c) {
            deficits_[m * K + c] = double(high) - row[c];
            largest_ = std::max(largest_, deficits_[m * K + c]);
        }
        sum_of_maxima_ += high;
        magnitude_ += largest;
    }
    // Each of M float32 additions has an error of at most 2^-24 of the magnitude. The margin is
    // twice their sum.
    margin_ = M * magnitude_ * std::ldexp(1.0, -23);
}

float Query::partial_score(uint16_t prefix, int bytes) const {
    float sum = 0;
    for (int i = 0; i < bytes; ++i) {
        const int byte = prefix >> 8 * (bytes - 1 - i) & 255;
        sum += value(2 * i, byte & 15);
        sum += value(2 * i + 1, byte >> 4);
    }
    return sum;
}

double Query::partial_deficit(uint16_t prefix, int bytes) const {
    double sum = 0;
    for (int i = 0; i < bytes; ++i) {
        const int byte = prefix >> 8 * (bytes - 1 - i) & 255;
        sum += deficit(2 * i, byte & 15) + deficit(2 * i + 1, byte >> 4);
    }
    return sum;
}

double Query::finest_scale() const {
    const double within = std::max(limit(), SMALLEST);
    if (!wide()) return CUTOFF / within;
    const double average = within / M_;
    // The limit becomes at most M * LARGEST.
    return LARGEST / std::min(std::max(largest_, average), STEEP * average);
}

uint16_t Query::cutoff() const {
    if (!wide()) return CUTOFF;
    return static_cast<uint16_t>(std::max(0.0, limit() * scale_ * ROUNDED_UP));
}

const uint8_t* Query::quantised(int dropped) {
    const double finest = finest_scale() * ROUNDED_DOWN;
    const size_t row = row_bytes();
    if (scale_ < WORTH_REFINING * finest) {
        scale_ = finest;
        const double most = wide() ? LARGEST : 255;
        for (size_t from = 0; from < deficits_.size(); from += K) {
            uint8_t* to = tables_.data() + from / K * row;
            for (size_t c = 0; c < K; ++c)
                to[c] = static_cast<uint8_t>(std::min(most, deficits_[from + c] * scale_));
            for (size_t copy = K; copy < row; copy += K) std::memcpy(to + copy, to, K);
        }
    }
    return tables_.data() + 2 * dropped * row;
}

}  // namespace gpq
