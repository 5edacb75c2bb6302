// Finds the hits among the codes that survive the filter.
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
    explicit Candidates(const Eligible& eligible) : eligible_(eligible) {}

    // Offers the hits among a query's survivors to the query, and clears the survivors.
    template <class Codes>
    void take(Query& query, const Run& run, const Codes& codes) {
        if (query.surviving.empty()) return;
        if (codes.masked) drop_ineligible(query.surviving, run, codes);
        score(query, run, codes);
        query.surviving.clear();
        for (const Candidate& c : found_) codes.offer(eligible_, query, c.position, c.score);
    }

    // The number of survivors that were checked against a mask since the last reset.
    size_t mask_checks() const { return mask_checks_; }
    void reset_mask_checks() { mask_checks_ = 0; }

  private:
    struct Candidate {
        float score;
        uint32_t position;
    };

    // Keeps the positions whose first row is eligible, and those that have several rows. Memory is
    // prefetched for all positions before it is used for the first.
    template <class Codes>
    void drop_ineligible(std::vector<uint32_t>& positions, const Run& run, const Codes& codes) {
        for (const uint32_t position : positions) codes.prefetch(position);
        for (const uint32_t position : positions) eligible_.prefetch(codes.first_row(position));
        mask_checks_ += positions.size();
        const auto ineligible = [&](uint32_t p) {
            return codes.only_row(p) && !eligible_.row(codes.first_row(p));
        };
        positions.erase(std::remove_if(positions.begin(), positions.end(), ineligible),
                        positions.end());
        for (const uint32_t position : positions)
            for (int p = 0; p < run.planes; ++p)
                __builtin_prefetch(run.code(position) + p * BLOCK);
    }

    // Computes the scores of the survivors and collects possible hits in found_.
    template <class Codes>
    void score(Query& query, const Run& run, const Codes& codes) {
        constexpr size_t SUMS = 8;  // independent sums, which the processor computes at once
        std::vector<uint32_t>& positions = query.surviving;
        const size_t count = positions.size();
        found_.resize(count);
        if (!count) return;
        const float threshold = query.threshold();
        size_t found = 0;
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
            // Every candidate is written, to avoid branches that cannot be predicted.
            for (size_t j = 0; j < std::min(SUMS, count - i); ++j) {
                found_[found] = {scores[j], positions[i + j]};
                found += (scores[j] >= threshold) & eligible_.score(scores[j]);
            }
        }
        found_.resize(found);
    }

    const Eligible& eligible_;
    std::vector<Candidate> found_;
    size_t mask_checks_ = 0;
};

}  // namespace gpq
