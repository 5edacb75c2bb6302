// The k best of the hits offered so far.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
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
    float threshold() const { return threshold_; }

    // Whether there are k.
    bool enough() const { return ranks_.size() >= k_; }

    bool admits(const Hit& hit) const { return rank(hit) > last_; }

    void offer(const Hit& hit) {
        if (!admits(hit)) return;
        ranks_.push_back(rank(hit));
        if (ranks_.size() >= room_) cut();
    }

    void clear() { *this = Hits(k_); }

    // In order; leaves nothing behind.
    std::vector<Hit> take() {
        std::sort(ranks_.begin(), ranks_.end(), std::greater<>());
        std::vector<Hit> hits(std::min(k_, ranks_.size()));
        for (size_t i = 0; i < hits.size(); ++i) hits[i] = hit_of(ranks_[i]);
        clear();
        return hits;
    }

  private:
    // One number for score and row, larger for an earlier hit: to compare it needs one
    // branch. A score is a sum that began with +0, so it is never -0.
    static uint64_t rank(const Hit& hit) {
        uint32_t bits;
        std::memcpy(&bits, &hit.score, sizeof bits);
        bits = bits & SIGN ? ~bits : bits | SIGN;
        return uint64_t(bits) << 32 | uint32_t(~hit.row);
    }
    static Hit hit_of(uint64_t rank) {
        const uint32_t high = uint32_t(rank >> 32);
        const uint32_t bits = high & SIGN ? high & ~SIGN : ~high;
        Hit hit = {0, ~uint32_t(rank)};
        std::memcpy(&hit.score, &bits, sizeof bits);
        return hit;
    }

    // Some more than k are kept before they are cut to k: cheaper than a heap.
    void cut() {
        last_ = leave_greatest();
        ranks_.resize(k_);
        threshold_ = hit_of(last_).score;
        room_ = k_ + std::max(LEAST_SPARE, k_);
    }

    // Moves the k greatest to the front and returns the least of them. std::nth_element, but
    // without a branch on each comparison, which nothing can foresee. Ranks are all different.
    uint64_t leave_greatest() {
        uint64_t* v = ranks_.data();
        for (size_t first = 0, last = ranks_.size() - 1;;) {  // last is in it
            const size_t middle = first + (last - first) / 2;
            order(v[middle], v[first]);
            order(v[last], v[first]);
            order(v[middle], v[last]);  // the median of three is last
            const uint64_t pivot = v[last];
            size_t next = first;  // what is before it is greater
            for (size_t i = first; i < last; ++i) {
                const uint64_t value = v[i];
                v[i] = v[next];
                v[next] = value;
                next += value > pivot;
            }
            std::swap(v[next], v[last]);
            if (next == k_ - 1) return pivot;
            if (next < k_) first = next + 1;
            else last = next - 1;
        }
    }
    static void order(uint64_t& greater, uint64_t& less) {
        const uint64_t a = greater, b = less;
        greater = std::max(a, b);
        less = std::min(a, b);
    }

    static constexpr uint32_t SIGN = uint32_t(1) << 31;
    static constexpr size_t LEAST_SPARE = 16;
    size_t k_;
    size_t room_;
    std::vector<uint64_t> ranks_;
    uint64_t last_ = 0;  // nothing comes after it
    float threshold_ = -std::numeric_limits<float>::infinity();
};

}  // namespace gpq
