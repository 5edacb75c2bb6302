#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "eligible.h"
#include "mask.h"
#include "query.h"

namespace gpq {
namespace {

#if defined(GPQ_SMALL)  // so that little data sees everything
constexpr size_t TILE = 3, FIRST_VISITS = 100;
constexpr size_t WALKED = 70, AWAITED = 30, ASKED_TOGETHER = 7;
#else
constexpr size_t WALKED = 256;          // rows scanned together, in their order
constexpr size_t AWAITED = 128;         // rows whose codes are on their way from memory meanwhile
constexpr size_t TILE = 1024;           // blocks that all queries see while they are in the cache
constexpr size_t ASKED_TOGETHER = 64;   // candidates of which it is asked whether a mask refuses them
constexpr size_t FIRST_VISITS = 16384;  // codes visited before it is asked whether that pays
#endif
constexpr uint64_t TOP = uint64_t(1) << 63;
// In the time that one code is filtered: the byte of a row in a mask looked at, a code found by its
// row, and a candidate asked whether the mask refuses it.
constexpr double LOOKED_AT = 0.2, FOUND = 80, ASKED = 150;

// Where codes lie that have their dropped sub-codes in common.
struct Run {
    const uint8_t* blocks;
    int planes;
    int dropped;

    // Its bytes are BLOCK apart.
    const uint8_t* code(uint32_t position) const {
        return blocks + size_t(position / BLOCK) * planes * BLOCK + position % BLOCK;
    }
};

// A query of a run, and the deficit of the dropped sub-codes.
struct Asking {
    Query* query;
    double deficit;

    Asking(Query* query, double deficit) : query(query), deficit(deficit) {}
};

class Search {
  public:
    Search(const Request& request, Filter filter) : r_(request), filter_(filter), eligible_(request) {}

    bool run() {
        queries_.reserve(r_.queries);
        for (size_t q = 0; q < r_.queries; ++q) {
            queries_.emplace_back(r_.luts + q * r_.M * K, r_.M, r_.k);
            if (!queries_.back().finite()) return false;
        }
        std::vector<Query*> unfinished;
        for (Query& query : queries_) unfinished.push_back(&query);
        const double share = walked_share();
        const bool walking = worth_walking(share);
        // Where the parts are of rows, no query may be through with its part of the blocks.
        if (!walking || (r_.parts == 1 && share * FIRST_VISITS >= 4 * double(r_.k))) {
            const size_t most = walking ? size_t(share * FOUND * sorted_end()) : SIZE_MAX;
            const bool alone = !walking && r_.queries == 1;
            const auto done = [&](Query* query) { return visit_best_first(*query, most, alone); };
            unfinished.erase(std::remove_if(unfinished.begin(), unfinished.end(), done),
                             unfinished.end());
        }
        for (size_t s = 0; s < r_.segment_count; ++s)
            if (walking) walk_segment(*r_.segments[s], unfinished);
            else scan_segment(codes_of(s), unfinished);
        for (size_t t = r_.part; t < r_.tail_count; t += r_.parts) scan_tail(r_.tails[t]);
        for (size_t q = 0; q < r_.queries; ++q) write(q);
        return true;
    }

  private:
    struct Candidate {
        float score;
        uint32_t position;
    };

    // Whose codes they are: of a segment, of some of its rows, or of a tail.
    struct SortedCodes {
        const Segment& segment;
        bool masked;
        uint16_t prefix(uint32_t position) const { return prefix_of(segment, position); }
        void prefetch(uint32_t position) const {
            if (segment.starts.empty()) __builtin_prefetch(&segment.rows[position * segment.row_bytes]);
            else __builtin_prefetch(&segment.starts[position]);
        }
        uint32_t first_row(uint32_t position) const {
            const size_t begin = segment.rows_begin(position);
            return begin == segment.rows_end(position) ? NONE : segment.row(begin);
        }
        bool only_row(uint32_t position) const {
            return segment.rows_end(position) - segment.rows_begin(position) == 1;
        }
        void offer(const Search& search, Query& query, uint32_t position, float score) const {
            size_t i = segment.rows_begin(position);
            const size_t end = segment.rows_end(position);
            if (i < end && !search.eligible_.hit({score, segment.row(i)}))
                i = search.first_later(segment, i, end);
            for (; i < end; ++i) {
                const Hit hit = {score, segment.row(i)};
                if (!query.hits.admits(hit)) return;  // later rows come later in the order
                search.offer(query, hit);
            }
        }
    };
    struct CodesOfRows {
        const uint32_t* rows;
        static constexpr bool masked = false;  // they are eligible
        uint16_t prefix(uint32_t) const { return 0; }
        void prefetch(uint32_t) const {}
        uint32_t first_row(uint32_t position) const { return rows[position]; }
        bool only_row(uint32_t) const { return true; }
        void offer(const Search& search, Query& query, uint32_t position, float score) const {
            search.offer(query, {score, rows[position]});
        }
    };
    struct CodesByRow {
        uint32_t start;
        bool masked;
        uint16_t prefix(uint32_t) const { return 0; }
        void prefetch(uint32_t) const {}
        uint32_t first_row(uint32_t position) const { return start + position; }
        bool only_row(uint32_t) const { return true; }
        void offer(const Search& search, Query& query, uint32_t position, float score) const {
            search.offer(query, {score, start + position});
        }
    };

    // Of a position's rows from first to last the first that comes late enough.
    size_t first_later(const Segment& segment, size_t first, size_t last) const {
        while (first < last) {
            const size_t middle = first + (last - first) / 2;
            if (int64_t(segment.row(middle)) <= r_.after_row) first = middle + 1;
            else last = middle;
        }
        return first;
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

    // Nodes in order of the best score they can hold, until none can hold a hit: true. Where
    // that shuts too little out, or takes more than so many codes, what is left is scanned whole
    // for a query that is alone; any other has only learnt a threshold: false.
    bool visit_best_first(Query& query, size_t most, bool alone) {
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
        size_t visited = 0, allowed = FIRST_VISITS;
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
            const uint16_t prefix = prefix_of(segment, node.first);
            const Asking asking = {&query, query.partial_deficit(prefix, segment.dropped)};
            const SortedCodes codes = codes_of(visit.segment);
            scan(&asking, 1, run_of(segment), node.first, node.last, codes);
            take(query, run_of(segment), codes);
            visited += node.last - node.first;
            if (visited > allowed) {
                if (visited > most || still_to_visit(query) > all / 2) {
                    if (alone) scan_queued(query);
                    else query.restart();
                    return alone;
                }
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
            if (visit.deficit <= query.limit() && node.first < node.last)
                scan_groups({&query}, codes, node.first, node.last);
        }
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

    static uint16_t prefix_of(const Segment& segment, uint32_t position) {
        return segment.prefixes[segment.group_of[position / BLOCK]];
    }

    void scan_segment(const SortedCodes& codes, const std::vector<Query*>& queries) {
        const Share blocks = own(codes.segment.block_count);
        for (size_t tile = blocks.first; tile < blocks.last && !queries.empty(); tile += TILE) {
            const size_t end = std::min(tile + TILE, blocks.last);
            scan_groups(queries, codes, uint32_t(tile * BLOCK), uint32_t(end * BLOCK));
        }
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
        for (Query* query : queries) take(*query, run_of(segment), codes);
    }

    static Run run_of(const Segment& segment) {
        return {segment.blocks.data(), segment.planes, segment.dropped};
    }

    void scan_tail(const Tail& tail) {
        const Run run = {tail.blocks, (r_.M + 1) / 2, 0};
        const CodesByRow codes = {tail.first_row, eligible_.masked(tail.first_row + tail.count)};
        asking_.clear();
        for (Query& query : queries_) asking_.emplace_back(&query, 0);
        scan_all(run, 0, tail.count, codes);
        for (Query& query : queries_) take(query, run, codes);
    }

    // Whether it costs less to find the codes of all eligible rows, and to filter these, than to
    // filter all codes. With n eligible of N, about k N/n (1 + ln(n/k)) get through before k
    // eligible ones have raised the threshold, and the mask is asked for each of them.
    bool worth_walking(double share) const {
        if (share == 1) return false;
        const double all = sorted_end(), n = share * all, k = double(r_.k), Q = double(r_.queries);
        const double walk = all * LOOKED_AT + n * (FOUND + Q);
        return n <= k || walk < Q * (all + k / share * (1 + std::log(n / k)) * ASKED);
    }

    // Of all rows in segments, those the mask leaves; 1 where no mask is asked for each of them.
    double walked_share() const {
        const uint32_t end = sorted_end();
        return r_.mask && !r_.mask_from && end ? eligible_.share(end) : 1;
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
        asking_.clear();
        for (Query* query : queries) asking_.emplace_back(query, 0);
        scan_all(run, 0, uint32_t(count), codes);
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
                if (!codes.masked || query.surviving.size() >= ASKED_TOGETHER)
                    take(query, run, codes);
            }
            block += count;
        }
    }

    // Offers a query what is a hit of its survivors.
    template <class Codes>
    void take(Query& query, const Run& run, const Codes& codes) {
        if (query.surviving.empty()) return;
        if (codes.masked) leave_eligible(query.surviving, run, codes);
        score(query, run, codes);
        query.surviving.clear();
        for (const Candidate& c : candidates_) codes.offer(*this, query, c.position, c.score);
    }

    // Of positions, those whose first row is eligible, or that have more rows than one. All
    // memory of one kind is asked for before any of it is used.
    template <class Codes>
    void leave_eligible(std::vector<uint32_t>& positions, const Run& run, const Codes& codes) {
        for (const uint32_t position : positions) codes.prefetch(position);
        for (const uint32_t position : positions) eligible_.prefetch(codes.first_row(position));
        const auto gone = [&](uint32_t p) {
            return codes.only_row(p) && !eligible_.row(codes.first_row(p));
        };
        positions.erase(std::remove_if(positions.begin(), positions.end(), gone), positions.end());
        for (const uint32_t position : positions)
            for (int p = 0; p < run.planes; ++p)
                __builtin_prefetch(run.code(position) + p * BLOCK);
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

    // The survivors that can be hits, with their scores, to candidates_.
    template <class Codes>
    void score(Query& query, const Run& run, const Codes& codes) {
        constexpr size_t SUMS = 4;  // that do not wait for each other
        std::vector<uint32_t>& positions = query.surviving;
        candidates_.clear();
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
                    candidates_.push_back({scores[j], positions[i + j]});
        }
    }

    void offer(Query& query, const Hit& hit) const {
        if (query.hits.admits(hit) && eligible_.row(hit.row) && eligible_.hit(hit))
            query.hits.offer(hit);
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
    std::vector<Query> queries_;
    std::vector<Visit> queue_;
    std::vector<Asking> asking_;
    std::vector<Candidate> candidates_;
    std::vector<uint8_t> gathered_;
};

}  // namespace

bool search(const Request& request, Filter filter) { return Search(request, filter).run(); }

}  // namespace gpq
