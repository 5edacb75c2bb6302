#include "search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "mask.h"
#include "query.h"

namespace gpq {
namespace {

#if defined(GPQ_SMALL)  // so that little data sees everything
constexpr size_t TILE = 3, FIRST_VISITS = 100;
constexpr size_t WALKED = 70, AWAITED = 30;
#else
constexpr size_t WALKED = 256;          // rows scanned together, in their order
constexpr size_t AWAITED = 128;         // rows whose codes are on their way from memory meanwhile
constexpr size_t TILE = 1024;           // blocks that all queries see while they are in the cache
constexpr size_t FIRST_VISITS = 16384;  // codes visited before it is asked whether that pays
#endif
constexpr uint64_t TOP = uint64_t(1) << 63;
// In the time that one code is filtered: the byte of a row in a mask looked at, a code found by its
// row, and a candidate asked whether the mask refuses it.
constexpr double LOOKED_AT = 0.2, FOUND = 55, ASKED = 130;

class Eligible {
  public:
    explicit Eligible(const Request& r) : r_(r) {}

    bool row(uint32_t row) const {
        if (r_.removed && r_.removed[row / 64] >> row % 64 & 1) return false;
        return !r_.mask || row < r_.mask_from || (row < r_.mask_rows && r_.mask[row]);
    }
    // Whether a row before this one can be refused by the mask.
    bool masked(uint32_t last_row) const { return r_.mask && last_row > r_.mask_from; }
    void prefetch(uint32_t row) const {
        if (row < r_.mask_rows) __builtin_prefetch(r_.mask + row);
    }
    // Of the 64 rows from a multiple of 64 on, those that the mask and the removals leave.
    uint64_t rows(uint32_t first) const {
        if (first >= r_.mask_rows) return 0;
        const uint64_t rest = r_.mask_rows - first;
        const uint8_t* bytes = r_.mask + first;
        const uint64_t removed = r_.removed ? r_.removed[first / 64] : 0;
        return (rest < 64 ? set_bits(bytes, rest) : set_bits(bytes)) & ~removed;
    }
    // Of the first so many rows, by a sample; the same in all parts of a search. An odd step, so
    // that no pattern of rows is hit or missed as a whole.
    double share(uint32_t end) const {
        constexpr uint64_t SAMPLE = 256, TOGETHER = 64;  // which are in one line of memory
        const uint64_t last = std::min<uint64_t>(end, r_.mask_rows);
        const uint64_t step = last / SAMPLE | 1;
        size_t seen = 0, eligible = 0;
        for (uint64_t row = 0; row < last; row += step) {
            const size_t count = std::min(TOGETHER, last - row);
            eligible += count_bits(set_bits(r_.mask + row, count));
            seen += count;
        }
        return seen ? double(eligible) / double(seen) * double(last) / end : 0;
    }
    bool hit(const Hit& hit) const {
        if (!r_.has_after || hit.score < r_.after_score) return true;
        return hit.score == r_.after_score && int64_t(hit.row) > r_.after_row;
    }
    bool score(float score) const { return !r_.has_after || score <= r_.after_score; }

  private:
    const Request& r_;
};

// Where codes lie that have their dropped sub-codes in common.
struct Run {
    const uint8_t* blocks;
    int planes;
    int dropped;
};

// A query of a run, and what the dropped sub-codes are to it.
struct Asking {
    Query* query;
    float partial;   // score
    double deficit;

    Asking(Query* query, float partial, double deficit)
        : query(query), partial(partial), deficit(deficit) {}
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
        float partial;
        uint32_t segment, node;
        int depth;
        bool operator<(const Visit& other) const { return deficit > other.deficit; }
    };

    // Nodes in order of the best score they can hold, until none can hold a hit: true. Where
    // that shuts too little out, or takes more than so many codes, what is left is scanned whole
    // for a query that is alone; any other has only learnt a threshold: false.
    bool visit_best_first(Query& query, size_t most, bool alone) {
        size_t codes = 0;
        queue_.clear();
        for (uint32_t s = 0; s < r_.segment_count; ++s) {
            const Segment& segment = *r_.segments[s];
            if (segment.nodes.empty()) continue;
            queue_.push_back({0, 0, s, 0, 0});
            const Share blocks = own(segment.block_count);
            codes += (blocks.last - blocks.first) * BLOCK;
        }
        std::make_heap(queue_.begin(), queue_.end());
        size_t visited = 0, allowed = FIRST_VISITS;
        bool whole = false;
        while (!queue_.empty()) {
            std::pop_heap(queue_.begin(), queue_.end());
            const Visit visit = queue_.back();
            queue_.pop_back();
            if (query.selective() && visit.deficit > query.limit()) return true;
            const Segment& segment = *r_.segments[visit.segment];
            const Node node = own(segment, segment.nodes[visit.node]);
            if (node.first >= node.last) continue;
            if (whole) {
                scan_groups({&query}, codes_of(visit.segment), node.first, node.last);
                continue;
            }
            if (node.children) {
                expand(query, segment, node, visit);
                continue;
            }
            const double deficit = group_deficit(query, segment, node.first);
            const Asking asking = {&query, visit.partial, deficit};
            scan(&asking, 1, run_of(segment), node.first, node.last, codes_of(visit.segment));
            visited += node.last - node.first;
            if (visited > allowed) {
                whole = visited > most || still_to_visit(query) > codes / 2;
                if (whole && !alone) {
                    query.restart();
                    return false;
                }
                allowed = 2 * visited;
            }
        }
        return true;
    }

    void expand(const Query& query, const Segment& segment, const Node& node, const Visit& visit) {
        const int m = visit.depth;
        for (uint32_t c = node.child; c < node.child + node.children; ++c) {
            const int code = segment.nodes[c].code;
            const double deficit = visit.deficit + query.deficit(m, code);
            if (query.selective() && deficit > query.limit()) continue;
            const bool in_prefix = m < 2 * segment.dropped;
            const float partial = in_prefix ? visit.partial + query.value(m, code) : visit.partial;
            queue_.push_back({deficit, partial, visit.segment, c, m + 1});
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

    static double group_deficit(const Query& query, const Segment& segment, uint32_t position) {
        const uint16_t group = segment.group_of[position / BLOCK];
        return query.partial_deficit(segment.prefixes[group], segment.dropped);
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
                    asking_.emplace_back(query, query->partial_score(prefix, dropped), deficit);
            }
            scan_all(run_of(segment), first, last, codes);
            first = last;
        }
    }

    static Run run_of(const Segment& segment) {
        return {segment.blocks.data(), segment.planes, segment.dropped};
    }

    void scan_tail(const Tail& tail) {
        const Run run = {tail.blocks, (r_.M + 1) / 2, 0};
        const CodesByRow codes = {tail.first_row, eligible_.masked(tail.first_row + tail.count)};
        asking_.clear();
        for (Query& query : queries_) asking_.emplace_back(&query, 0, 0);
        scan_all(run, 0, tail.count, codes);
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
        for (uint64_t base = first / BLOCK * BLOCK; base < last && !queries.empty(); base += BLOCK) {
            uint64_t left = eligible_.rows(uint32_t(base));
            if (base < first) left &= ~uint64_t(0) << (first - base);
            if (base + BLOCK > last) left &= ~uint64_t(0) >> (base + BLOCK - last);
            const size_t more = count_bits(left);
            const auto list = [&](size_t i) {
                walked[count + i] = uint32_t(base) + uint32_t(__builtin_ctzll(left | TOP));
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
        scan_rows(segment, walked, count, queries);
    }

    void scan_rows(const Segment& segment, const uint32_t* rows, size_t count,
                   const std::vector<Query*>& queries) {
        gathered_.resize((count + BLOCK - 1) / BLOCK * BLOCK * segment.width());
        segment.gather(rows, count, gathered_.data());
        const Run run = {gathered_.data(), int(segment.width()), 0};
        const CodesOfRows codes = {rows};
        asking_.clear();
        for (Query* query : queries) asking_.emplace_back(query, 0, 0);
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

    // Offers the queries all hits among the positions from first to last. Only one that is alone
    // need not be selective.
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
                list_positions(survivors[q], filtered[q].found, block, first, last);
                if (codes.masked) leave_eligible(codes);
                score(asking[q], run, codes);
                for (const Candidate& c : candidates_)
                    codes.offer(*this, *asking[q].query, c.position, c.score);
            }
            block += count;
        }
    }

    // Of positions_, those whose first row is eligible, or that have more rows than one. All
    // memory of one kind is asked for before any of it is used.
    template <class Codes>
    void leave_eligible(const Codes& codes) {
        for (const uint32_t position : positions_) codes.prefetch(position);
        for (const uint32_t position : positions_) eligible_.prefetch(codes.first_row(position));
        const auto gone = [&](uint32_t p) {
            return codes.only_row(p) && !eligible_.row(codes.first_row(p));
        };
        positions_.erase(std::remove_if(positions_.begin(), positions_.end(), gone),
                         positions_.end());
    }

    // To positions_: those from first to last among the survivors, which count from block.
    void list_positions(const Survivors* survivors, size_t count, size_t block, uint32_t first,
                        uint32_t last) {
        positions_.clear();
        for (size_t s = 0; s < count; ++s) {
            uint64_t left = survivors[s].codes;
            const size_t begin = (block + survivors[s].block) * BLOCK;
            if (begin < first) left &= ~uint64_t(0) << (first - begin);
            if (begin + BLOCK > last) left &= ~uint64_t(0) >> (begin + BLOCK - last);
            for (; left; left &= left - 1)
                positions_.push_back(uint32_t(begin + __builtin_ctzll(left)));
        }
    }

    // The positions_ that can be hits, with their scores, to candidates_.
    template <class Codes>
    void score(const Asking& asking, const Run& run, const Codes& codes) {
        constexpr size_t SUMS = 4;  // that do not wait for each other
        const Query& query = *asking.query;
        candidates_.clear();
        const size_t count = positions_.size();
        positions_.resize((count + SUMS - 1) / SUMS * SUMS, count ? positions_[0] : 0);
        for (size_t i = 0; i < count; i += SUMS) {
            const uint8_t* bytes[SUMS];
            float scores[SUMS];
            for (size_t j = 0; j < SUMS; ++j) {
                const uint32_t position = positions_[i + j];
                bytes[j] = run.blocks + position / BLOCK * run.planes * BLOCK + position % BLOCK;
                codes.prefetch(position);
            }
            query.score(asking.partial, bytes, run.planes, run.dropped, scores);
            for (size_t j = 0; j < std::min(SUMS, count - i); ++j)
                if (scores[j] >= query.threshold() && eligible_.score(scores[j]))
                    candidates_.push_back({scores[j], positions_[i + j]});
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
    std::vector<uint32_t> positions_;
    std::vector<Candidate> candidates_;
    std::vector<uint8_t> gathered_;
};

}  // namespace

bool search(const Request& request, Filter filter) { return Search(request, filter).run(); }

}  // namespace gpq
