// The k best of the hits offered so far.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace gpq {

struct Hit {
    float score;
    uint32_t row;
};

// The order of results: score descending, then row ascending.
struct Before {
    bool operator()(const Hit& a, const Hit& b) const {
        return a.score > b.score || (a.score == b.score && a.row < b.row);
    }
};
inline constexpr Before before{};

class Hits {
  public:
    explicit Hits(size_t k) : k_(k), room_(k) {}

    // The score below which nothing is a hit any more; -inf while any may be one.
    float threshold() const { return last_.score; }

    bool admits(const Hit& hit) const { return before(hit, last_); }

    void offer(const Hit& hit) {
        if (!admits(hit)) return;
        hits_.push_back(hit);
        if (hits_.size() >= room_) cut();
    }

    void clear() { *this = Hits(k_); }

    // In order; leaves nothing behind.
    std::vector<Hit> take() {
        std::sort(hits_.begin(), hits_.end(), before);
        if (hits_.size() > k_) hits_.resize(k_);
        return std::move(hits_);
    }

  private:
    // Some more than k are kept before they are cut to k: cheaper than a heap.
    void cut() {
        std::nth_element(hits_.begin(), hits_.begin() + (k_ - 1), hits_.end(), before);
        hits_.resize(k_);
        last_ = hits_.back();
        room_ = k_ + std::max(LEAST_SPARE, k_ / 2);
    }

    static constexpr size_t LEAST_SPARE = 16;
    size_t k_;
    size_t room_;
    std::vector<Hit> hits_;
    Hit last_ = {-std::numeric_limits<float>::infinity(), 0xffffffff};  // no hit comes after it
};

}  // namespace gpq
