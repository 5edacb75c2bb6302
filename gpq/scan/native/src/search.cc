#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "candidates.h"
#include "codes.h"
#include "eligible.h"
#include "mask.h"
#include "query.h"
#include "sample.h"

namespace gpq {
namespace {

#if defined(GPQ_SMALL)  // so that little data sees everything
constexpr size_t TILE = 3;
constexpr double FIRST_VISITS = 100;
constexpr size_t WALKED = 70, AWAITED = 30;
#else
constexpr size_t WALKED = 256;          // rows scanned together, in their order
constexpr size_t AWAITED = 128;         // rows whose codes are on their way from memory meanwhile
constexpr size_t TILE = 1024;           // blocks that all queries see while they are in the cache
constexpr double FIRST_VISITS = 16384;  // codes visited before it is asked whether that pays
#endif
constexpr uint64_t TOP = uint64_t(1) << 63;
// In the time that one code is filtered: the byte of a row in a mask looked at, a code found by its
// row, and a candidate asked whether the mask refuses it.
constexpr double LOOKED_AT = 0.2, FOUND = 100, ASKED = 200;

// A query of a run, and the deficit of the dropped sub-codes.
struct Asking {
    Query* query;
    double deficit;

    Asking(Query* query, double deficit) : query(query), deficit(deficit) {}
};

class Search {
  public:
    Search(const Request& request, Filter filter)
        : r_(request), filter_(filter), eligible_(request), candidates_(eligible_) {}

    bool run() {
        queries_.reserve(r_.queries);
        for (size_t q = 0; q < r_.queries; ++q) {
            queries_.emplace_back(r_.luts + q * r_.M * K, r_.M, r_.k);
            if (!queries_.back().finite()) return false;
        }
        std::vector<Query*> queries;
        for (Query& query : queries_) queries.push_back(&query);
        if (r_.mask && !r_.mask_from && sorted_end()) plan();
        find(queries);
        const auto right = [](Query* query) { return query->supposed_rightly(); };
        queries.erase(std::remove_if(queries.begin(), queries.end(), right), queries.end());
        for (Query* query : queries) query->forget();
        if (!queries.empty()) find(queries);
        for (size_t q = 0; q < r_.queries; ++q) write(q);
        return true;
    }

  private:
    void find(const std::vector<Query*>& queries) {
        std::vector<Query*> unfinished = queries;
        // Where the parts are of rows, no query may be through with its part of the blocks.
        if (!walking_ || (r_.parts == 1 && r_.k / share_ * ASKED < most_)) {
            const bool alone = !walking_ && r_.queries == 1;
            const auto done = [&](Query* query) { return search_best_first(*query, alone); };
            unfinished.erase(std::remove_if(unfinished.begin(), unfinished.end(), done),
                             unfinished.end());
        }
        for (size_t s = 0; s < r_.segment_count; ++s)
            if (walking_) walk_segment(*r_.segments[s], unfinished);
            else scan_segment(codes_of(s), unfinished);
        for (size_t t = r_.part; t < r_.tail_count; t += r_.parts) scan_tail(r_.tails[t], queries);
    }

    // Which of so many things are in this request's part.
    struct Share {
        size_t first, last;
    };
    Share own(size_t count) const {
        return {count * r_.part / r_.parts, count * (r_.part + 1) / r_.parts};
    }
    // A node without the positions that are in other parts; first is not below last where all are.
    Node own(const Segment& segment, Node node) const {
        const Share blocks = own(segment.block_count);
        node.first = std::max(node.first, uint32_t(blocks.first * BLOCK));
        node.last = std::min(node.last, uint32_t(blocks.last * BLOCK));
        return node;
    }

    SortedCodes codes_of(size_t s) const {
        return {*r_.segments[s], eligible_.masked(r_.segments[s]->last_row)};
    }

    // A node that is still to be visited.
    struct Visit {
        double deficit;
        uint32_t segment, node;
        int depth;
        bool operator<(const Visit& other) const { return deficit > other.deficit; }
    };

    // Where the best nodes do not hold all hits, what is left is scanned whole for a query that is
    // alone; any other has only learnt a threshold: false.
    bool search_best_first(Query& query, bool alone) {
        const bool done = visit_best_first(query);
        if (!done && alone) scan_queued(query);
        take_waiting(query);
        if (!done && !alone) query.restart();
        return done || alone;
    }

    // Nodes in order of the best score they can hold, until none can hold a hit: true. False where
    // that shuts too little out, or takes more than most_; the others are still queued.
    bool visit_best_first(Query& query) {
        size_t all = 0;
        queue_.clear();
        for (uint32_t s = 0; s < r_.segment_count; ++s) {
            const Segment& segment = *r_.segments[s];
            if (segment.nodes.empty()) continue;
            queue_.push_back({0, s, 0, 0});
            const Share blocks = own(segment.block_count);
            all += (blocks.last - blocks.first) * BLOCK;
        }
        std::make_heap(queue_.begin(), queue_.end());
        double visited = 0, allowed = FIRST_VISITS;
        candidates_.count_anew();
        while (!queue_.empty()) {
            std::pop_heap(queue_.begin(), queue_.end());
            const Visit visit = queue_.back();
            queue_.pop_back();
            if (query.selective() && visit.deficit > query.limit()) return true;
            const Segment& segment = *r_.segments[visit.segment];
            const Node node = own(segment, segment.nodes[visit.node]);
            if (node.first >= node.last) continue;
            if (node.children) {
                expand(query, segment, node, visit);
                continue;
            }
            const SortedCodes codes = codes_of(visit.segment);
            const uint16_t prefix = codes.prefix(node.first);
            const Asking asking = {&query, query.partial_deficit(prefix, segment.dropped)};
            begin_with(visit.segment, query);
            scan(&asking, 1, run_of(segment), node.first, node.last, codes);
            visited += node.last - node.first;
            if (visited + double(candidates_.asked()) * ASKED > most_) return false;
            if (visited > allowed) {
                take_waiting(query);
                if (!walking_ && still_to_visit(query) > all / 2) return false;
                allowed = 2 * visited;
            }
        }
        return true;
    }

    // What is queued, whole and in its order: from memory that is faster than by what is best.
    void scan_queued(Query& query) {
        const auto place = [&](const Visit& visit) {
            return std::make_pair(visit.segment, r_.segments[visit.segment]->nodes[visit.node].first);
        };
        std::sort(queue_.begin(), queue_.end(),
                  [&](const Visit& a, const Visit& b) { return place(a) < place(b); });
        for (const Visit& visit : queue_) {
            const SortedCodes codes = codes_of(visit.segment);
            const Node node = own(codes.segment, codes.segment.nodes[visit.node]);
            begin_with(visit.segment, query);
            if (visit.deficit <= query.limit() && node.first < node.last)
                scan_groups({&query}, codes, node.first, node.last);
        }
    }

    // What a mask may refuse waits from leaf to leaf, but not for another segment.
    void begin_with(uint32_t segment, Query& query) {
        if (segment != waiting_of_) take_waiting(query);
        waiting_of_ = segment;
    }
    void take_waiting(Query& query) {
        if (query.surviving.empty()) return;
        candidates_.take(query, run_of(*r_.segments[waiting_of_]), codes_of(waiting_of_));
    }

    void expand(const Query& query, const Segment& segment, const Node& node, const Visit& visit) {
        const int m = visit.depth;
        for (uint32_t c = node.child; c < node.child + node.children; ++c) {
            const int code = segment.nodes[c].code;
            const double deficit = visit.deficit + query.deficit(m, code);
            if (query.selective() && deficit > query.limit()) continue;
            queue_.push_back({deficit, visit.segment, c, m + 1});
            std::push_heap(queue_.begin(), queue_.end());
        }
    }

    size_t still_to_visit(const Query& query) const {
        size_t codes = 0;
        for (const Visit& visit : queue_) {
            if (query.selective() && visit.deficit > query.limit()) continue;
            const Segment& segment = *r_.segments[visit.segment];
            const Node node = own(segment, segment.nodes[visit.node]);
            codes += node.last > node.first ? node.last - node.first : 0;
        }
        return codes;
    }

    void scan_segment(const SortedCodes& codes, const std::vector<Query*>& queries) {
        const Share blocks = own(codes.segment.block_count);
        for (size_t tile = blocks.first; tile < blocks.last && !queries.empty(); tile += TILE) {
            const size_t end = std::min(tile + TILE, blocks.last);
            scan_groups(queries, codes, uint32_t(tile * BLOCK), uint32_t(end * BLOCK));
        }
        for (Query* query : queries) candidates_.take(*query, run_of(codes.segment), codes);
    }

    // The positions from first to end, a group at a time.
    void scan_groups(const std::vector<Query*>& queries, const SortedCodes& codes, uint32_t first,
                     uint32_t end) {
        const Segment& segment = codes.segment;
        const int dropped = segment.dropped;
        for (size_t g = segment.group_of[first / BLOCK]; first < end; ++g) {
            const uint32_t last = std::min(end, uint32_t(segment.groups[g + 1] * BLOCK));
            const uint16_t prefix = segment.prefixes[g];
            asking_.clear();
            for (Query* query : queries) {
                const double deficit = query->partial_deficit(prefix, dropped);
                if (!query->selective() || deficit <= query->limit())
                    asking_.emplace_back(query, deficit);
            }
            scan_all(run_of(segment), first, last, codes);
            first = last;
        }
    }

    static Run run_of(const Segment& segment) {
        return {segment.blocks.data(), segment.planes, segment.dropped};
    }

    void scan_tail(const Tail& tail, const std::vector<Query*>& queries) {
        const Run run = {tail.blocks, (r_.M + 1) / 2, 0};
        const CodesByRow codes = {tail.first_row, eligible_.masked(tail.first_row + tail.count)};
        ask(queries);
        scan_all(run, 0, tail.count, codes);
        for (Query* query : queries) candidates_.take(*query, run, codes);
    }

    // How to search, the same in all parts of it, and what score the k best should reach.
    //
    // Either all codes are filtered: of n eligible ones the threshold begins at the m-th; of N
    // codes, about k N/n (1 + ln(m/k)) get through before it is at the k-th, and the mask is asked
    // for each of them. Each part of a search has a threshold of its own, which nothing is supposed
    // of. Or the codes of all eligible rows are found, and filtered.
    void plan() {
        const Sample sample(eligible_, sorted_end(), r_.k);
        share_ = sample.share();
        const double all = sorted_end(), n = share_ * all, k = double(r_.k), Q = double(r_.queries);
        const bool supposing = r_.parts == 1 && sample.blocks().size() >= sample.expected();
        const double m = std::max(k, supposing ? std::min(n, sample.reaching()) : n / r_.parts);
        const double asked = r_.parts * k / share_ * (1 + std::log(m / k));
        const double filtering = Q * (all + asked * ASKED);
        const double walking = all * LOOKED_AT + n * (FOUND + Q);
        walking_ = n <= k || walking < filtering;
        if (walking_) most_ = walking / (8 * Q);
        if (supposing) suppose(sample);
    }

    // That k eligible codes reach the score that Sample::expected() of the sampled blocks do.
    void suppose(const Sample& sample) {
        const size_t most = std::min(r_.k, 4 * sample.expected());
        std::vector<Query> probes;
        probes.reserve(r_.queries);
        std::vector<Query*> asked;
        for (size_t q = 0; q < r_.queries; ++q) {
            probes.emplace_back(r_.luts + q * r_.M * K, r_.M, most);
            asked.push_back(&probes.back());
        }
        for (size_t s = 0; s < r_.segment_count; ++s) {
            const Segment& segment = *r_.segments[s];
            const std::vector<uint32_t> rows = sample.rows(segment.first_row, segment.last_row);
            for (const uint32_t row : rows) __builtin_prefetch(segment.code_of(row));
            scan_rows(segment, rows.data(), rows.size(), asked);
        }
        for (size_t q = 0; q < r_.queries; ++q)
            queries_[q].suppose(sample.score(probes[q].hits.take()));
    }

    uint32_t sorted_end() const {
        uint32_t end = 0;
        for (size_t s = 0; s < r_.segment_count; ++s) end = std::max(end, r_.segments[s]->last_row);
        return end;
    }

    // The eligible codes of a segment in order of their rows.
    void walk_segment(const Segment& segment, const std::vector<Query*>& queries) {
        const Share rows = own(segment.last_row - segment.first_row);
        const uint32_t first = uint32_t(segment.first_row + rows.first);
        const uint32_t last = uint32_t(segment.first_row + rows.last);
        constexpr size_t MOSTLY = 4, FETCHED = 32;
        uint32_t walked[WALKED + AWAITED + FETCHED + 2 * BLOCK];
        size_t count = 0, fetched = 0;
        for (uint64_t start = first, end; start < last && !queries.empty(); start = end) {
            end = std::min<uint64_t>(last, (start / BLOCK + Eligible::STRETCH) * BLOCK);
            Survivors blocks[Eligible::STRETCH];
            const size_t found = eligible_.rows(start, end, blocks);
            for (size_t b = 0; b < found; ++b) {
                uint64_t left = blocks[b].codes;
                const size_t more = count_bits(left);
                const uint32_t base = uint32_t(blocks[b].block * BLOCK);
                const auto list = [&](size_t i) {
                    walked[count + i] = base + uint32_t(__builtin_ctzll(left | TOP));
                    left &= left - 1;
                };
                // So many also where there are fewer: nothing can foresee how many there are.
                for (size_t i = 0; i < MOSTLY; ++i) list(i);
                for (size_t i = MOSTLY; i < more; ++i) list(i);
                count += more;
                for (; count - fetched >= FETCHED; fetched += FETCHED)
                    for (size_t i = 0; i < FETCHED; ++i)
                        __builtin_prefetch(segment.code_of(walked[fetched + i]));
                if (fetched < WALKED + AWAITED) continue;
                scan_rows(segment, walked, WALKED, queries);
                count -= WALKED;
                fetched -= WALKED;
                std::copy_n(walked + WALKED, count, walked);
            }
        }
        scan_rows(segment, walked, count, queries);
    }

    void scan_rows(const Segment& segment, const uint32_t* rows, size_t count,
                   const std::vector<Query*>& queries) {
        gathered_.resize((count + BLOCK - 1) / BLOCK * BLOCK * segment.width());
        segment.gather(rows, count, gathered_.data());
        const Run run = {gathered_.data(), int(segment.width()), 0};
        const CodesOfRows codes = {rows};
        ask(queries);
        scan_all(run, 0, uint32_t(count), codes);
    }

    void ask(const std::vector<Query*>& queries) {
        asking_.clear();
        for (Query* query : queries) asking_.emplace_back(query, 0);
    }

    // For all that are asking_.
    template <class Codes>
    void scan_all(const Run& run, uint32_t first, uint32_t last, const Codes& codes) {
        for (size_t i = 0, n; i < asking_.size(); i += n) {
            n = std::min(TOGETHER, asking_.size() - i);
            for (size_t j = 0; j < n; ++j)
                if (!asking_[i + j].query->selective()) n = 1;
            scan(&asking_[i], n, run, first, last, codes);
        }
    }

    // Offers the queries all hits among the positions from first to last, but for some that a
    // mask may refuse: they are left to take(). Only one that is alone need not be selective.
    template <class Codes>
    void scan(const Asking* asking, size_t queries, const Run& run, uint32_t first, uint32_t last,
              const Codes& codes) {
        if (first == last) return;
        const size_t end = (last + BLOCK - 1) / BLOCK;
        Survivors survivors[TOGETHER][Query::CHUNK];
        Filtered filtered[TOGETHER];
        for (size_t block = first / BLOCK; block < end;) {
            size_t count = 1;
            if (asking->query->selective()) {
                count = end - block;
                bool any = false;
                for (size_t q = 0; q < queries; ++q) {
                    Query& query = *asking[q].query;
                    count = std::min(count, query.next_chunk());
                    const uint8_t* tables = query.quantised() + run.dropped * 2 * K;
                    filtered[q] = {tables, query.quantised(asking[q].deficit), survivors[q], 0};
                    any = any || filtered[q].base <= CUTOFF;
                }
                if (!any) return;
                const uint8_t* blocks = run.blocks + block * run.planes * BLOCK;
                filter_(blocks, count, run.planes, filtered, queries);
            } else {
                survivors[0][0] = {~uint64_t(0), 0};
                filtered[0].found = 1;
            }
            for (size_t q = 0; q < queries; ++q) {
                if (!filtered[q].found) continue;
                Query& query = *asking[q].query;
                list_positions(query, survivors[q], filtered[q].found, block, first, last);
                if (!codes.masked || query.surviving.size() >= Candidates::TOGETHER)
                    candidates_.take(query, run, codes);
            }
            block += count;
        }
    }

    // To a query's survivors: those from first to last of these, which count from block.
    static void list_positions(Query& query, const Survivors* survivors, size_t count,
                               size_t block, uint32_t first, uint32_t last) {
        for (size_t s = 0; s < count; ++s) {
            uint64_t left = survivors[s].codes;
            const size_t begin = (block + survivors[s].block) * BLOCK;
            if (begin < first) left &= ~uint64_t(0) << (first - begin);
            if (begin + BLOCK > last) left &= ~uint64_t(0) >> (begin + BLOCK - last);
            for (; left; left &= left - 1)
                query.surviving.push_back(uint32_t(begin + __builtin_ctzll(left)));
        }
    }

    void write(size_t q) {
        const std::vector<Hit> hits = queries_[q].hits.take();
        int64_t* rows = r_.rows + q * r_.k;
        float* scores = r_.scores + q * r_.k;
        for (size_t i = 0; i < r_.k; ++i) {
            const bool found = i < hits.size();
            rows[i] = found ? int64_t(hits[i].row) : -1;
            scores[i] = found ? hits[i].score : -std::numeric_limits<float>::infinity();
        }
    }

    const Request& r_;
    Filter filter_;
    Eligible eligible_;
    Candidates candidates_;
    double share_ = 1;      // of the rows in segments, those that the mask leaves
    bool walking_ = false;  // from eligible row to row, not through all codes
    double most_ = std::numeric_limits<double>::infinity();  // for a query's best nodes, before walking
    std::vector<Query> queries_;
    std::vector<Visit> queue_;
    uint32_t waiting_of_ = 0;  // the segment of what survives in the best nodes
    std::vector<Asking> asking_;
    std::vector<uint8_t> gathered_;
};

}  // namespace

bool search(const Request& request, Filter filter) { return Search(request, filter).run(); }

}  // namespace gpq
