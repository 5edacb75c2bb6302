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

#if defined(GPQ_SMALL)  // small, so that little data reaches every branch
constexpr size_t TILE = 3;
constexpr double FIRST_VISITS = 100;
constexpr size_t GATHERED = 70, PREFETCHED = 30;
#else
constexpr size_t TILE = 1024;           // blocks that all queries scan while they are in the cache
constexpr double FIRST_VISITS = 16384;  // codes visited before the search by best nodes is assessed
constexpr size_t GATHERED = 256;        // eligible rows whose codes are scanned together
constexpr size_t PREFETCHED = 128;      // further rows whose codes are prefetched meanwhile
#endif
constexpr uint64_t TOP = uint64_t(1) << 63;
// Costs relative to filtering one code: reading the byte of a row in a mask, finding the code of a
// row, and checking a survivor against a mask.
constexpr double MASK_READ_COST = 0.2, ROW_LOOKUP_COST = 100, MASK_CHECK_COST = 200;

// A query that scans a run of codes, and the deficit of their dropped sub-codes.
struct ActiveQuery {
    Query* query;
    double deficit;

    ActiveQuery(Query* query, double deficit) : query(query), deficit(deficit) {}
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
        const auto held = [](Query* query) { return query->assumption_held(); };
        queries.erase(std::remove_if(queries.begin(), queries.end(), held), queries.end());
        for (Query* query : queries) query->reset();
        if (!queries.empty()) find(queries);
        for (size_t q = 0; q < r_.queries; ++q) write(q);
        return true;
    }

  private:
    void find(const std::vector<Query*>& queries) {
        std::vector<Query*> unfinished = queries;
        // If each part is a range of rows, a query cannot finish with its part of the blocks.
        if (!by_row_ || (r_.parts == 1 && r_.k / share_ * MASK_CHECK_COST < visit_limit_)) {
            const bool alone = !by_row_ && r_.queries == 1;
            const auto done = [&](Query* query) { return search_best_first(*query, alone); };
            unfinished.erase(std::remove_if(unfinished.begin(), unfinished.end(), done),
                             unfinished.end());
        }
        for (size_t s = 0; s < r_.segment_count; ++s)
            if (by_row_) scan_eligible_rows(*r_.segments[s], unfinished);
            else scan_segment(codes_of(s), unfinished);
        for (size_t t = r_.part; t < r_.tail_count; t += r_.parts) scan_tail(r_.tails[t], queries);
    }

    // The blocks or rows of this request's part.
    struct Range {
        size_t first, last;
    };
    Range own_part(size_t count) const {
        return {count * r_.part / r_.parts, count * (r_.part + 1) / r_.parts};
    }
    // Returns the node without the positions of other parts. If none is left, first >= last.
    Node own_part(const Segment& segment, Node node) const {
        const Range blocks = own_part(segment.block_count);
        node.first = std::max(node.first, uint32_t(blocks.first * BLOCK));
        node.last = std::min(node.last, uint32_t(blocks.last * BLOCK));
        return node;
    }

    SortedCodes codes_of(size_t s) const {
        return {*r_.segments[s], eligible_.masked(r_.segments[s]->last_row)};
    }

    // A node to visit; deficit is the smallest that its codes can have.
    struct Visit {
        double deficit;
        uint32_t segment, node;
        int depth;
        bool operator<(const Visit& other) const { return deficit > other.deficit; }
    };

    // Searches the best nodes for a query, and returns whether the query is finished. If further
    // nodes can hold hits, they are scanned for a query that is alone; another query only keeps its
    // threshold.
    bool search_best_first(Query& query, bool alone) {
        const bool done = visit_best_first(query);
        if (!done && alone) scan_queued(query);
        take_pending(query);
        if (!done && !alone) query.restart();
        return done || alone;
    }

    // Visits nodes in order of the best score that they can hold. Returns true when no further node
    // can hold a hit. Returns false if too few nodes are excluded, or if the visits cost more than
    // visit_limit_; the nodes that were not visited stay in the queue.
    bool visit_best_first(Query& query) {
        size_t all = 0;
        queue_.clear();
        for (uint32_t s = 0; s < r_.segment_count; ++s) {
            const Segment& segment = *r_.segments[s];
            if (segment.nodes.empty()) continue;
            queue_.push_back({0, s, 0, 0});
            const Range blocks = own_part(segment.block_count);
            all += (blocks.last - blocks.first) * BLOCK;
        }
        std::make_heap(queue_.begin(), queue_.end());
        double visited = 0, allowed = FIRST_VISITS;
        candidates_.reset_mask_checks();
        while (!queue_.empty()) {
            std::pop_heap(queue_.begin(), queue_.end());
            const Visit visit = queue_.back();
            queue_.pop_back();
            if (query.selective() && visit.deficit > query.limit()) return true;
            const Segment& segment = *r_.segments[visit.segment];
            const Node node = own_part(segment, segment.nodes[visit.node]);
            if (node.first >= node.last) continue;
            if (node.children) {
                expand(query, segment, node, visit);
                continue;
            }
            const SortedCodes codes = codes_of(visit.segment);
            const uint16_t prefix = codes.prefix(node.first);
            const ActiveQuery active = {&query, query.partial_deficit(prefix, segment.dropped)};
            enter_segment(visit.segment, query);
            scan(&active, 1, run_of(segment), node.first, node.last, codes);
            visited += node.last - node.first;
            const double checks = double(candidates_.mask_checks());
            if (visited + checks * MASK_CHECK_COST > visit_limit_) return false;
            if (visited > allowed) {
                take_pending(query);
                if (!by_row_ && codes_to_visit(query) > all / 2) return false;
                allowed = 2 * visited;
            }
        }
        return true;
    }

    // Scans the queued nodes in order of memory, which is faster than in order of best scores.
    void scan_queued(Query& query) {
        const auto place = [&](const Visit& visit) {
            return std::make_pair(visit.segment, r_.segments[visit.segment]->nodes[visit.node].first);
        };
        std::sort(queue_.begin(), queue_.end(),
                  [&](const Visit& a, const Visit& b) { return place(a) < place(b); });
        for (const Visit& visit : queue_) {
            const SortedCodes codes = codes_of(visit.segment);
            const Node node = own_part(codes.segment, codes.segment.nodes[visit.node]);
            enter_segment(visit.segment, query);
            if (visit.deficit <= query.limit() && node.first < node.last)
                scan_groups({&query}, codes, node.first, node.last);
        }
    }

    // Survivors are collected from several leaves of one segment, and scored before a leaf of another
    // segment is visited.
    void enter_segment(uint32_t segment, Query& query) {
        if (segment != pending_segment_) take_pending(query);
        pending_segment_ = segment;
    }
    void take_pending(Query& query) {
        if (query.surviving.empty()) return;
        candidates_.take(query, run_of(*r_.segments[pending_segment_]), codes_of(pending_segment_));
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

    size_t codes_to_visit(const Query& query) const {
        size_t codes = 0;
        for (const Visit& visit : queue_) {
            if (query.selective() && visit.deficit > query.limit()) continue;
            const Segment& segment = *r_.segments[visit.segment];
            const Node node = own_part(segment, segment.nodes[visit.node]);
            codes += node.last > node.first ? node.last - node.first : 0;
        }
        return codes;
    }

    void scan_segment(const SortedCodes& codes, const std::vector<Query*>& queries) {
        const Range blocks = own_part(codes.segment.block_count);
        for (size_t tile = blocks.first; tile < blocks.last && !queries.empty(); tile += TILE) {
            const size_t end = std::min(tile + TILE, blocks.last);
            scan_groups(queries, codes, uint32_t(tile * BLOCK), uint32_t(end * BLOCK));
        }
        for (Query* query : queries) candidates_.take(*query, run_of(codes.segment), codes);
    }

    // Scans the positions from first to end, one group after another.
    void scan_groups(const std::vector<Query*>& queries, const SortedCodes& codes, uint32_t first,
                     uint32_t end) {
        const Segment& segment = codes.segment;
        const int dropped = segment.dropped;
        for (size_t g = segment.group_of[first / BLOCK]; first < end; ++g) {
            const uint32_t last = std::min(end, uint32_t(segment.groups[g + 1] * BLOCK));
            const uint16_t prefix = segment.prefixes[g];
            active_.clear();
            for (Query* query : queries) {
                const double deficit = query->partial_deficit(prefix, dropped);
                if (!query->selective() || deficit <= query->limit())
                    active_.emplace_back(query, deficit);
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
        activate(queries);
        scan_all(run, 0, tail.count, codes);
        for (Query* query : queries) candidates_.take(*query, run, codes);
    }

    // Chooses how to search with a mask, the same in all parts of a search, and which score the k
    // best hits are assumed to reach.
    //
    // One way is to filter all N codes. If the threshold starts at the m-th best of n eligible
    // codes, about k N/n (1 + ln(m/k)) codes survive before it reaches the k-th best, and each of
    // them is checked against the mask. A search in several parts assumes no score, because each
    // part has a threshold of its own. The other way is to gather the codes of all eligible rows
    // and to filter those.
    void plan() {
        const Sample sample(eligible_, sorted_end(), r_.k);
        share_ = sample.share();
        const double all = sorted_end(), n = share_ * all, k = double(r_.k), Q = double(r_.queries);
        const bool assuming = r_.parts == 1 && sample.blocks().size() >= sample.expected();
        const double m = std::max(k, assuming ? std::min(n, sample.expected_rows()) : n / r_.parts);
        const double checked = r_.parts * k / share_ * (1 + std::log(m / k));
        const double filter_cost = Q * (all + checked * MASK_CHECK_COST);
        const double gather_cost = all * MASK_READ_COST + n * (ROW_LOOKUP_COST + Q);
        by_row_ = n <= k || gather_cost < filter_cost;
        if (by_row_) visit_limit_ = gather_cost / (8 * Q);
        if (assuming) assume_threshold(sample);
    }

    // Assumes, for each query, that k eligible codes reach the score that the best codes of
    // Sample::expected() sampled blocks reach.
    void assume_threshold(const Sample& sample) {
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
            queries_[q].assume(sample.score(probes[q].hits.take()));
    }

    uint32_t sorted_end() const {
        uint32_t end = 0;
        for (size_t s = 0; s < r_.segment_count; ++s) end = std::max(end, r_.segments[s]->last_row);
        return end;
    }

    // Gathers and scans the eligible codes of a segment in order of their rows.
    void scan_eligible_rows(const Segment& segment, const std::vector<Query*>& queries) {
        const Range rows = own_part(segment.last_row - segment.first_row);
        const uint32_t first = uint32_t(segment.first_row + rows.first);
        const uint32_t last = uint32_t(segment.first_row + rows.last);
        constexpr size_t UNCONDITIONAL = 4, PREFETCH_STEP = 32;
        uint32_t gathered[GATHERED + PREFETCHED + PREFETCH_STEP + 2 * BLOCK];
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
                    gathered[count + i] = base + uint32_t(__builtin_ctzll(left | TOP));
                    left &= left - 1;
                };
                // Lists at least UNCONDITIONAL rows, even if there are fewer, to avoid branches
                // that cannot be predicted.
                for (size_t i = 0; i < UNCONDITIONAL; ++i) list(i);
                for (size_t i = UNCONDITIONAL; i < more; ++i) list(i);
                count += more;
                for (; count - fetched >= PREFETCH_STEP; fetched += PREFETCH_STEP)
                    for (size_t i = 0; i < PREFETCH_STEP; ++i)
                        __builtin_prefetch(segment.code_of(gathered[fetched + i]));
                if (fetched < GATHERED + PREFETCHED) continue;
                scan_rows(segment, gathered, GATHERED, queries);
                count -= GATHERED;
                fetched -= GATHERED;
                std::copy_n(gathered + GATHERED, count, gathered);
            }
        }
        scan_rows(segment, gathered, count, queries);
    }

    void scan_rows(const Segment& segment, const uint32_t* rows, size_t count,
                   const std::vector<Query*>& queries) {
        gathered_.resize((count + BLOCK - 1) / BLOCK * BLOCK * segment.width());
        segment.gather(rows, count, gathered_.data());
        const Run run = {gathered_.data(), int(segment.width()), 0};
        const CodesOfRows codes = {rows};
        activate(queries);
        scan_all(run, 0, uint32_t(count), codes);
    }

    void activate(const std::vector<Query*>& queries) {
        active_.clear();
        for (Query* query : queries) active_.emplace_back(query, 0);
    }

    // Scans the positions from first to last for all queries in active_.
    template <class Codes>
    void scan_all(const Run& run, uint32_t first, uint32_t last, const Codes& codes) {
        for (size_t i = 0, n; i < active_.size(); i += n) {
            n = std::min(MOST_QUERIES, active_.size() - i);
            for (size_t j = 0; j < n; ++j)
                if (!active_[i + j].query->selective()) n = 1;
            scan(&active_[i], n, run, first, last, codes);
        }
    }

    // Offers all hits among the positions from first to last to the queries. Some survivors can
    // remain in Query::surviving; Candidates::take handles them later. Several queries must all be
    // selective; a single one need not be.
    template <class Codes>
    void scan(const ActiveQuery* active, size_t queries, const Run& run, uint32_t first,
              uint32_t last, const Codes& codes) {
        if (first == last) return;
        const size_t end = (last + BLOCK - 1) / BLOCK;
        Survivors survivors[MOST_QUERIES][Query::CHUNK];
        Filtered filtered[MOST_QUERIES];
        for (size_t block = first / BLOCK; block < end;) {
            size_t count = 1;
            if (active->query->selective()) {
                count = end - block;
                bool any = false;
                for (size_t q = 0; q < queries; ++q) {
                    Query& query = *active[q].query;
                    count = std::min(count, query.next_chunk());
                    const uint8_t* tables = query.quantised(run.dropped);
                    const uint16_t base = query.base(active[q].deficit);
                    filtered[q] = {tables, base, query.cutoff(), survivors[q], 0};
                    any = any || base <= filtered[q].cutoff;
                }
                if (!any) return;
                const uint8_t* blocks = run.blocks + block * run.planes * BLOCK;
                filter_(blocks, count, run.planes, active->query->wide(), filtered, queries);
            } else {
                survivors[0][0] = {~uint64_t(0), 0};
                filtered[0].found = 1;
            }
            for (size_t q = 0; q < queries; ++q) {
                if (!filtered[q].found) continue;
                Query& query = *active[q].query;
                list_positions(query, survivors[q], filtered[q].found, block, first, last);
                if (query.surviving.size() >= codes.batch()) candidates_.take(query, run, codes);
            }
            block += count;
        }
    }

    // Appends the positions from first to last in survivors to Query::surviving. The blocks of
    // survivors are relative to `block`.
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
    double share_ = 1;     // share of eligible rows in the segments
    bool by_row_ = false;  // whether eligible rows are gathered, instead of filtering all codes
    double visit_limit_ = std::numeric_limits<double>::infinity();  // cost of a query's best nodes
    std::vector<Query> queries_;
    std::vector<Visit> queue_;
    uint32_t pending_segment_ = 0;  // the segment of Query::surviving in search_best_first
    std::vector<ActiveQuery> active_;
    std::vector<uint8_t> gathered_;
};

}  // namespace

bool search(const Request& request, Filter filter) { return Search(request, filter).run(); }

}  // namespace gpq
