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
#else
constexpr size_t TILE = 1024;           // blocks that all queries see while they are in the cache
constexpr size_t FIRST_VISITS = 16384;  // codes visited before it is asked whether that pays
#endif

class Eligible {
  public:
    explicit Eligible(const Request& r) : r_(r) {}

    bool row(uint32_t row) const {
        if (r_.removed[row / 64] >> row % 64 & 1) return false;
        return !r_.mask || row < r_.mask_from || (row < r_.mask_rows && r_.mask[row]);
    }
    // Whether a row before this one can be refused by the mask.
    bool masked(uint32_t last_row) const { return r_.mask && last_row > r_.mask_from; }
    void prefetch(uint32_t row) const {
        if (row < r_.mask_rows) __builtin_prefetch(r_.mask + row);
    }
    bool hit(const Hit& hit) const {
        if (!r_.has_after || hit.score < r_.after_score) return true;
        return hit.score == r_.after_score && int64_t(hit.row) > r_.after_row;
    }
    bool score(float score) const { return !r_.has_after || score <= r_.after_score; }
    // Of rows of one score, ascending, the first that comes late enough.
    const uint32_t* first(float score, const uint32_t* begin, const uint32_t* end) const {
        if (!r_.has_after || score < r_.after_score) return begin;
        return std::upper_bound(begin, end, r_.after_row,
                                [](int64_t after, uint32_t row) { return after < int64_t(row); });
    }

    // Whether so few of all rows are eligible that scoring them one by one costs less than to
    // filter all; they are in rows then, ascending. With n eligible of N, a filter lets about
    // k N/n (1 + ln(n/k)) codes through before k eligible ones have raised the threshold, and
    // one of them costs less than an eligible row does here, whose code is in as many lines of
    // memory as it has bytes. ROUNDS was found by trying.
    bool few(uint32_t all, std::vector<uint32_t>& rows) const {
        if (!masked(all) || r_.mask_from) return false;
        const size_t most = size_t(std::sqrt(ROUNDS * double(all) * double(r_.k)));
        const uint32_t end = uint32_t(std::min<uint64_t>(all, r_.mask_rows));
        if (likely_more_than(most, end)) return false;
        return for_set(r_.mask, 0, end, [&](uint32_t found) {
            if (row(found)) rows.push_back(found);
            return rows.size() <= most;
        });
    }

  private:
    static constexpr double ROUNDS = 2;
    static constexpr uint32_t SAMPLE = 4096;

    // Of a sample. An odd step, so that no pattern of rows is hit or missed as a whole.
    bool likely_more_than(size_t most, uint32_t end) const {
        const uint32_t step = end / SAMPLE | 1;
        size_t seen = 0, eligible = 0;
        for (uint64_t i = 0; i < end; i += step, ++seen) eligible += r_.mask[i] != 0;
        return seen && double(eligible) / double(seen) * end > 1.5 * double(most);
    }

    const Request& r_;
};

// Where codes lie, and what is known of all of them.
struct Run {
    const uint8_t* blocks;
    int planes;
    int dropped;
    float partial;   // score of the dropped sub-codes
    double deficit;  // and their deficit
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
        std::vector<uint32_t> few;
        if (eligible_.few(end_row(), few)) {
            score_rows(own(few));
        } else {
            std::vector<Query*> unfinished;
            for (Query& query : queries_)
                if (!visit_best_first(query)) unfinished.push_back(&query);
            for (size_t s = 0; s < r_.segment_count; ++s) scan_segment(codes_of(s), unfinished);
            for (size_t t = r_.part; t < r_.tail_count; t += r_.parts) scan_tail(r_.tails[t]);
        }
        for (size_t q = 0; q < r_.queries; ++q) write(q);
        return true;
    }

  private:
    struct Candidate {
        float score;
        uint32_t position;
    };

    // Whose codes they are: of a segment, or of a tail.
    struct SortedCodes {
        const Segment& segment;
        bool masked;
        void prefetch(uint32_t position) const {
            __builtin_prefetch(segment.starts.empty() ? &segment.rows[position]
                                                      : &segment.starts[position]);
        }
        uint32_t first_row(uint32_t position) const {
            const uint32_t* begin = segment.rows_begin(position);
            return begin == segment.rows_end(position) ? NONE : *begin;
        }
        bool only_row(uint32_t position) const {
            return segment.rows_end(position) - segment.rows_begin(position) == 1;
        }
        void offer(const Search& search, Query& query, uint32_t position, float score) const {
            const uint32_t* end = segment.rows_end(position);
            const uint32_t* begin = segment.rows_begin(position);
            for (const uint32_t* row = search.eligible_.first(score, begin, end); row != end; ++row) {
                const Hit hit = {score, *row};
                if (!query.hits.admits(hit)) return;  // later rows come later in the order
                search.offer(query, hit);
            }
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

    // Which of so many things are in this request's part.
    struct Share {
        size_t first, last;
    };
    Share own(size_t count) const {
        return {count * r_.part / r_.parts, count * (r_.part + 1) / r_.parts};
    }
    std::vector<uint32_t> own(const std::vector<uint32_t>& rows) const {
        const Share share = own(rows.size());
        return {rows.begin() + ptrdiff_t(share.first), rows.begin() + ptrdiff_t(share.last)};
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
    // that shuts too little out: false, and the query has only learnt a threshold.
    bool visit_best_first(Query& query) {
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
            const Run run = {segment.blocks.data(), segment.planes, segment.dropped, visit.partial,
                             group_deficit(query, segment, node.first)};
            scan(query, run, node.first, node.last, codes_of(visit.segment));
            visited += node.last - node.first;
            if (visited > allowed) {
                if (still_to_visit(query) > codes / 2) {
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
            for (Query* query : queries) scan_groups(*query, codes, tile, end);
        }
    }

    // The blocks from tile to end, a group at a time.
    void scan_groups(Query& query, const SortedCodes& codes, size_t tile, size_t end) {
        const Segment& segment = codes.segment;
        for (size_t g = segment.group_of[tile], block = tile; block < end; ++g) {
            const size_t last = std::min<size_t>(end, segment.groups[g + 1]);
            const uint16_t prefix = segment.prefixes[g];
            const Run run = {segment.blocks.data(), segment.planes, segment.dropped,
                             query.partial_score(prefix, segment.dropped),
                             query.partial_deficit(prefix, segment.dropped)};
            if (!query.selective() || run.deficit <= query.limit())
                scan(query, run, uint32_t(block * BLOCK), uint32_t(last * BLOCK), codes);
            block = last;
        }
    }

    void scan_tail(const Tail& tail) {
        const Run run = {tail.blocks, (r_.M + 1) / 2, 0, 0, 0};
        const CodesByRow codes = {tail.first_row, eligible_.masked(tail.first_row + tail.count)};
        for (Query& query : queries_) scan(query, run, 0, tail.count, codes);
    }

    // Offers the query all hits among the positions from first to last.
    template <class Codes>
    void scan(Query& query, const Run& run, uint32_t first, uint32_t last, Codes codes) {
        if (first == last) return;
        const size_t end = (last + BLOCK - 1) / BLOCK;
        Survivors survivors[Query::CHUNK];
        for (size_t block = first / BLOCK; block < end;) {
            size_t count = 1, surviving = 1;
            if (query.selective()) {
                count = std::min(end - block, query.next_chunk());
                const uint8_t* tables = query.quantised() + run.dropped * 2 * K;
                const uint8_t base = query.quantised(run.deficit);
                if (base > CUTOFF) return;
                surviving = filter_(run.blocks + block * run.planes * BLOCK, count, run.planes,
                                    tables, base, survivors);
            } else {
                survivors[0] = {~uint64_t(0), 0};
            }
            if (surviving) {
                list_positions(survivors, surviving, block, first, last);
                if (codes.masked) leave_eligible(codes);
                score(query, run, codes);
                for (const Candidate& c : candidates_) codes.offer(*this, query, c.position, c.score);
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
    void score(const Query& query, const Run& run, Codes codes) {
        constexpr size_t TOGETHER = 4;  // sums that do not wait for each other
        candidates_.clear();
        const size_t count = positions_.size();
        positions_.resize((count + TOGETHER - 1) / TOGETHER * TOGETHER, count ? positions_[0] : 0);
        for (size_t i = 0; i < count; i += TOGETHER) {
            const uint8_t* bytes[TOGETHER];
            float scores[TOGETHER];
            for (size_t j = 0; j < TOGETHER; ++j) {
                const uint32_t position = positions_[i + j];
                bytes[j] = run.blocks + position / BLOCK * run.planes * BLOCK + position % BLOCK;
                codes.prefetch(position);
            }
            query.score(run.partial, bytes, run.planes, run.dropped, scores);
            for (size_t j = 0; j < std::min(TOGETHER, count - i); ++j)
                if (scores[j] >= query.threshold() && eligible_.score(scores[j]))
                    candidates_.push_back({scores[j], positions_[i + j]});
        }
    }

    void offer(Query& query, const Hit& hit) const {
        if (query.hits.admits(hit) && eligible_.row(hit.row) && eligible_.hit(hit))
            query.hits.offer(hit);
    }

    uint32_t end_row() const {
        uint32_t end = 0;
        for (size_t s = 0; s < r_.segment_count; ++s) end = std::max(end, r_.segments[s]->last_row);
        for (size_t t = 0; t < r_.tail_count; ++t)
            end = std::max(end, r_.tails[t].first_row + r_.tails[t].count);
        return end;
    }

    void score_rows(const std::vector<uint32_t>& rows) {
        for (size_t s = 0; s < r_.segment_count; ++s) {
            const Segment& segment = *r_.segments[s];
            const size_t stride = segment.planes * BLOCK;
            const auto bytes_of = [&](uint32_t position) {
                return segment.blocks.data() + position / BLOCK * stride + position % BLOCK;
            };
            const auto position_of = [&](uint32_t row) -> const uint32_t& {
                return segment.positions[row - segment.first_row];
            };
            const auto find = [&](uint32_t row) { __builtin_prefetch(&position_of(row)); };
            const auto fetch = [&](uint32_t row) {
                const uint32_t position = position_of(row);
                if (position == NONE) return;
                __builtin_prefetch(&segment.group_of[position / BLOCK]);
                for (int p = 0; p < segment.planes; ++p)
                    __builtin_prefetch(bytes_of(position) + p * BLOCK);
            };
            const auto score = [&](uint32_t row) {
                const uint32_t position = position_of(row);
                if (position == NONE) return;
                const uint16_t prefix = segment.prefixes[segment.group_of[position / BLOCK]];
                for (Query& query : queries_) {
                    const float partial = query.partial_score(prefix, segment.dropped);
                    offer(query, {query.score(partial, bytes_of(position), segment.planes,
                                              segment.dropped), row});
                }
            };
            for_rows(rows, segment.first_row, segment.last_row, find, fetch, score);
        }
        const int planes = (r_.M + 1) / 2;
        const auto nothing = [](uint32_t) {};
        for (size_t t = 0; t < r_.tail_count; ++t) {
            const Tail& tail = r_.tails[t];
            const auto score = [&](uint32_t row) {
                const uint32_t position = row - tail.first_row;
                const uint8_t* bytes =
                    tail.blocks + position / BLOCK * planes * BLOCK + position % BLOCK;
                for (Query& query : queries_) offer(query, {query.score(0, bytes, planes, 0), row});
            };
            for_rows(rows, tail.first_row, tail.first_row + tail.count, nothing, nothing, score);
        }
    }

    // Calls all three for the rows from first to last, each for some of them before the next:
    // so that the memory that is needed is on its way.
    template <class Find, class Fetch, class Score>
    static void for_rows(const std::vector<uint32_t>& rows, uint32_t first, uint32_t last,
                         const Find& find, const Fetch& fetch, const Score& score) {
        constexpr ptrdiff_t TOGETHER = 64;
        auto row = std::lower_bound(rows.begin(), rows.end(), first);
        const auto end = std::lower_bound(row, rows.end(), last);
        while (row != end) {
            const auto stop = row + std::min(TOGETHER, end - row);
            std::for_each(row, stop, find);
            std::for_each(row, stop, fetch);
            std::for_each(row, stop, score);
            row = stop;
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
    std::vector<Query> queries_;
    std::vector<Visit> queue_;
    std::vector<uint32_t> positions_;
    std::vector<Candidate> candidates_;
};

}  // namespace

bool search(const Request& request, Filter filter) { return Search(request, filter).run(); }

}  // namespace gpq
