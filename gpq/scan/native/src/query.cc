#include "query.h"

#include <algorithm>
#include <cmath>

namespace gpq {
namespace {

constexpr double WORTH_REFINING = 0.98;  // tables are renewed if the limit falls below this share
constexpr double SMALLEST = 1e-300;      // avoids a division by zero if all scores are equal
constexpr double ROUNDED_DOWN = 1 - 1e-9;

}  // namespace

Query::Query(const float* lut, int M, size_t k)
    : hits(k), lut_(lut), M_(M), deficits_(size_t(M) * K), tables_(size_t((M + 1) / 2) * 2 * K) {
    for (int m = 0; m < M; ++m) {
        const float* row = lut + m * K;
        float high = row[0];
        double largest = 0;
        for (int c = 0; c < K; ++c) {
            high = std::max(high, row[c]);
            largest = std::max(largest, std::fabs(double(row[c])));
            finite_ = finite_ && std::isfinite(row[c]);
        }
        for (int c = 0; c < K; ++c) deficits_[m * K + c] = double(high) - row[c];
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

const uint8_t* Query::quantised() {
    if (quantised_for_ < 0 || limit() < WORTH_REFINING * quantised_for_) {
        quantised_for_ = limit();
        scale_ = CUTOFF / std::max(quantised_for_, SMALLEST) * ROUNDED_DOWN;
        for (size_t i = 0; i < deficits_.size(); ++i) tables_[i] = quantised(deficits_[i]);
    }
    return tables_.data();
}

}  // namespace gpq
