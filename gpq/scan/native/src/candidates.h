// What has survived the filter: is it a hit?
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codes.h"
#include "eligible.h"
#include "query.h"

namespace gpq {

class Candidates {
  public:
#if defined(GPQ_SMALL)  // so that little data sees everything
    static constexpr size_t TOGETHER = 7;
#else
    static constexpr size_t TOGETHER = 128;  // of which it is asked whether a mask refuses them
#endif

    explicit Candidates(const Eligible& eligible) : eligible_(eligible) {}

    // Offers a query what is a hit of its survivors.
    template <class Codes>
    void take(Query& query, const Run& run, const Codes& codes) {
        if (query.surviving.empty()) return;
        if (codes.masked) leave_eligible(query.surviving, run, codes);
        score(query, run, codes);
        query.surviving.clear();
        for (const Candidate& c : found_) codes.offer(eligible_, query, c.position, c.score);
    }

    // Of how many a mask was asked, since it was last counted anew.
    size_t asked() const { return asked_; }
    void count_anew() { asked_ = 0; }

  private:
    struct Candidate {
        float score;
        uint32_t position;
    };

    // Of positions, those whose first row is eligible, or that have more rows than one. All
    // memory of one kind is asked for before any of it is used.
    template <class Codes>
    void leave_eligible(std::vector<uint32_t>& positions, const Run& run, const Codes& codes) {
        for (const uint32_t position : positions) codes.prefetch(position);
        for (const uint32_t position : positions) eligible_.prefetch(codes.first_row(position));
        asked_ += positions.size();
        const auto gone = [&](uint32_t p) {
            return codes.only_row(p) && !eligible_.row(codes.first_row(p));
        };
        positions.erase(std::remove_if(positions.begin(), positions.end(), gone), positions.end());
        for (const uint32_t position : positions)
            for (int p = 0; p < run.planes; ++p)
                __builtin_prefetch(run.code(position) + p * BLOCK);
    }

    // The survivors that can be hits, with their scores, to found_.
    template <class Codes>
    void score(Query& query, const Run& run, const Codes& codes) {
        constexpr size_t SUMS = 4;  // that do not wait for each other
        std::vector<uint32_t>& positions = query.surviving;
        found_.clear();
        const size_t count = positions.size();
        if (!count) return;
        positions.resize((count + SUMS - 1) / SUMS * SUMS, positions[0]);
        uint16_t prefix = codes.prefix(positions[0]);
        float partial = query.partial_score(prefix, run.dropped);
        for (size_t i = 0; i < count; i += SUMS) {
            const uint8_t* bytes[SUMS];
            float scores[SUMS];
            for (size_t j = 0; j < SUMS; ++j) {
                const uint32_t position = positions[i + j];
                bytes[j] = run.code(position);
                if (codes.prefix(position) != prefix) {
                    prefix = codes.prefix(position);
                    partial = query.partial_score(prefix, run.dropped);
                }
                scores[j] = partial;
                codes.prefetch(position);
            }
            query.add_scores(bytes, run.planes, run.dropped, scores);
            for (size_t j = 0; j < std::min(SUMS, count - i); ++j)
                if (scores[j] >= query.threshold() && eligible_.score(scores[j]))
                    found_.push_back({scores[j], positions[i + j]});
        }
    }

    const Eligible& eligible_;
    std::vector<Candidate> found_;
    size_t asked_ = 0;
};

}  // namespace gpq
