// Keeps the k best of the hits that are offered.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

namespace gpq {

// A result of a search. Hits are ordered by descending score, then by ascending row.
struct Hit {
    float score;
    uint32_t row;
};

class Hits {
  public:
    explicit Hits(size_t k) : k_(k), room_(k) {}

    // A score that a further hit must reach; -inf while any score may be a hit.
    float threshold() const { return threshold_; }

    // Whether k hits were found.
    bool full() const { return ranks_.size() >= k_; }

    bool admits(const Hit& hit) const { return rank(hit) > last_; }

    void offer(const Hit& hit) {
        if (!admits(hit)) return;
        ranks_.push_back(rank(hit));
        if (ranks_.size() >= room_) cut();
    }

    void clear() { *this = Hits(k_); }

    // Returns the hits in order, and clears them.
    std::vector<Hit> take() {
        std::sort(ranks_.begin(), ranks_.end(), std::greater<>());
        std::vector<Hit> hits(std::min(k_, ranks_.size()));
        for (size_t i = 0; i < hits.size(); ++i) hits[i] = hit_of(ranks_[i]);
        clear();
        return hits;
    }

  private:
    // Returns score and row as one number, which is larger for a better hit, so that a comparison
    // needs only one branch. A score is never -0, because it is a sum that starts at +0.
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

    // Cuts the hits to the k best. They are cut only when there are many more than k, which is
    // cheaper than a heap.
    void cut() {
        last_ = select_greatest();
        ranks_.resize(k_);
        threshold_ = hit_of(last_).score;
        room_ = k_ + std::max(LEAST_SPARE, k_ / 2);
    }

    // Moves the k greatest ranks to the front and returns the least of them. Unlike
    // std::nth_element it has no unpredictable branch for each comparison. All ranks differ.
    uint64_t select_greatest() {
        uint64_t* v = ranks_.data();
        for (size_t first = 0, last = ranks_.size() - 1;;) {  // the range includes last
            const size_t middle = first + (last - first) / 2;
            order(v[middle], v[first]);
            order(v[last], v[first]);
            order(v[middle], v[last]);  // the median of the three is now last
            const uint64_t pivot = v[last];
            size_t next = first;  // all values before it are greater than the pivot
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
    uint64_t last_ = 0;  // further hits need a higher rank
    float threshold_ = -std::numeric_limits<float>::infinity();
};

}  // namespace gpq
