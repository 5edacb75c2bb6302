#include "segment.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "sort.h"

namespace gpq {
namespace {

#if defined(GPQ_SMALL)  // small, so that little data reaches every branch
constexpr size_t LEAF = 20, LEAST_GROUP = 0;
constexpr size_t MOST_IN_3_BYTES = 10000;
#else
constexpr size_t LEAF = 4096;         // codes of a leaf, at most, unless its prefix is a whole code
constexpr size_t LEAST_GROUP = 1024;  // codes of a group on average, at least
constexpr size_t MOST_IN_3_BYTES = (1 << 24) - 1;
#endif
constexpr int MOST_DROPPED = 2;
constexpr double SHARE_TO_JOIN = 0.75;  // equal codes are joined up to this share of distinct codes

class Builder {
  public:
    Builder(const uint8_t* packed, const uint32_t* rows, size_t count, int M, bool find_rows)
        : packed_(packed), rows_(rows), count_(count), M_(M), find_rows_(find_rows),
          width_((M + 1) / 2), order_(sorted_order(packed, count, width_)) {}

    std::unique_ptr<Segment> build() {
        segment_->M = M_;
        segment_->first_row = count_ ? rows_[0] : 0;
        segment_->last_row = count_ ? rows_[count_ - 1] + 1 : 0;
        find_entries();
        choose_dropped();
        form_groups();
        place();
        list_rows();
        place_by_row();
        grow_tree();
        return std::move(segment_);
    }

  private:
    // The place in order_ at which an entry begins.
    size_t start(size_t entry) const { return joined_ ? starts_[entry] : entry; }

    const uint8_t* code(size_t entry) const { return packed_ + order_[start(entry)] * width_; }

    uint16_t prefix(size_t entry) const {
        const uint8_t* bytes = code(entry);
        uint16_t value = 0;
        for (int i = 0; i < segment_->dropped; ++i) value = uint16_t(value << 8 | bytes[i]);
        return value;
    }

    int sub_code(size_t entry, int m) const {
        const uint8_t byte = code(entry)[m / 2];
        return m % 2 ? byte >> 4 : byte & 15;
    }

    // An entry gets a position. It is a distinct code, or a row if few codes are equal.
    void find_entries() {
        const auto differs = [this](size_t i) {
            return i == 0 || std::memcmp(packed_ + order_[i] * width_,
                                         packed_ + order_[i - 1] * width_, width_) != 0;
        };
        size_t unique = 0;
        for (size_t i = 0; i < count_; ++i) unique += differs(i);
        joined_ = unique <= SHARE_TO_JOIN * count_;
        size_ = joined_ ? unique : count_;
        if (!joined_) return;
        starts_.reserve(unique + 1);
        for (size_t i = 0; i < count_; ++i)
            if (differs(i)) starts_.push_back(static_cast<uint32_t>(i));
        starts_.push_back(static_cast<uint32_t>(count_));
    }

    void choose_dropped() {
        int& dropped = segment_->dropped = 0;
        while (dropped < MOST_DROPPED && dropped + 1 < int(width_) &&
               size_ >> (8 * (dropped + 1)) >= LEAST_GROUP)
            ++dropped;
        segment_->planes = int(width_) - dropped;
    }

    void form_groups() {
        Segment& s = *segment_;
        size_t blocks = 0;
        for (size_t e = 0; e < size_; ++e) {
            if (e && prefix(e) == s.prefixes.back()) continue;
            if (e) blocks += blocks_of(e - first_entries_.back());
            s.groups.push_back(uint32_t(blocks));
            s.prefixes.push_back(prefix(e));
            first_entries_.push_back(uint32_t(e));
        }
        if (size_) blocks += blocks_of(size_ - first_entries_.back());
        s.groups.push_back(uint32_t(blocks));
        first_entries_.push_back(uint32_t(size_));
        s.block_count = blocks;
        s.group_of.resize(blocks);
        for (size_t g = 0; g < s.prefixes.size(); ++g)
            std::fill(s.group_of.begin() + s.groups[g], s.group_of.begin() + s.groups[g + 1],
                      uint16_t(g));
    }

    static size_t blocks_of(size_t codes) { return (codes + BLOCK - 1) / BLOCK; }

    // Calls visit with every entry and its position, in order.
    template <class Visit>
    void for_entries(const Visit& visit) const {
        for (size_t g = 0; g < segment_->prefixes.size(); ++g) {
            uint32_t position = uint32_t(segment_->groups[g] * BLOCK);
            for (size_t e = first_entries_[g]; e < first_entries_[g + 1]; ++e) visit(e, position++);
        }
    }

    uint32_t position_of(size_t entry) const {
        const auto next = std::upper_bound(first_entries_.begin(), first_entries_.end() - 1, entry);
        const size_t g = size_t(next - first_entries_.begin()) - 1;
        return uint32_t(segment_->groups[g] * BLOCK + entry - first_entries_[g]);
    }

    void place() {
        Segment& s = *segment_;
        s.blocks = Buffer<uint8_t>(s.block_count * s.planes * BLOCK);
        for_entries([&](size_t e, uint32_t position) {
            uint8_t* bytes = s.blocks.data() + position / BLOCK * s.planes * BLOCK + position % BLOCK;
            for (int p = 0; p < s.planes; ++p) bytes[p * BLOCK] = code(e)[s.dropped + p];
        });
    }

    void list_rows() {
        Segment& s = *segment_;
        const size_t span = s.last_row - s.first_row;
        s.row_bytes = span < MOST_IN_3_BYTES ? 3 : 4;
        s.rows = Buffer<uint8_t>((joined_ ? count_ : s.block_count * BLOCK) * s.row_bytes);
        s.rows.fill(255);
        if (joined_) s.starts = Buffer<uint32_t>(s.block_count * BLOCK + 1);
        size_t next = 0;  // position whose start is not yet known
        for_entries([&](size_t e, uint32_t position) {
            if (joined_)
                for (; next <= position; ++next) s.starts[next] = starts_[e];
            for (size_t i = start(e); i < start(e + 1); ++i) {
                const uint32_t row = rows_[order_[i]];
                const uint32_t number = row - s.first_row;
                uint8_t* place = s.rows.data() + (joined_ ? i : position) * s.row_bytes;
                std::memcpy(place, &number, s.row_bytes);  // little-endian
            }
        });
        if (joined_)
            for (; next < s.starts.size(); ++next) s.starts[next] = uint32_t(count_);
    }

    void place_by_row() {
        Segment& s = *segment_;
        if (!find_rows_ || !count_) return;
        s.by_row = Buffer<uint8_t>((s.last_row - s.first_row) * width_);
        for (size_t i = 0; i < count_; ++i)
            std::memcpy(&s.by_row[(rows_[i] - s.first_row) * width_], packed_ + i * width_, width_);
    }

    // Builds the tree level by level. Until the end, first and last of a node are entries.
    void grow_tree() {
        std::vector<Node>& nodes = segment_->nodes;
        if (!size_) return;
        nodes.push_back({0, uint32_t(size_), 0, 0, 0});
        size_t level_end = 1;
        for (size_t n = 0, depth = 0; n < nodes.size(); ++n) {
            if (n == level_end) {
                level_end = nodes.size();
                ++depth;
            }
            if (int(depth) < M_ && (nodes[n].last - nodes[n].first > LEAF ||
                                    int(depth) < 2 * segment_->dropped))
                split(nodes, n, int(depth));
        }
        for (Node& node : nodes) {
            node.first = position_of(node.first);
            node.last = position_of(node.last - 1) + 1;
        }
    }

    void split(std::vector<Node>& nodes, size_t n, int m) {
        const uint32_t last = nodes[n].last;
        nodes[n].child = uint32_t(nodes.size());
        for (uint32_t first = nodes[n].first; first < last;) {
            const int value = sub_code(first, m);
            uint32_t low = first + 1, high = last;  // the first entry with a larger sub-code
            while (low < high) {
                const uint32_t middle = low + (high - low) / 2;
                if (sub_code(middle, m) == value) low = middle + 1;
                else high = middle;
            }
            nodes.push_back({first, low, 0, 0, uint8_t(value)});
            ++nodes[n].children;
            first = low;
        }
    }

    const uint8_t* packed_;
    const uint32_t* rows_;
    size_t count_;
    int M_;
    bool find_rows_;
    size_t width_;
    std::vector<uint32_t> order_;
    bool joined_ = false;
    std::vector<uint32_t> starts_;         // if joined_: place of each entry in order_, and the end
    size_t size_ = 0;                      // number of entries
    std::vector<uint32_t> first_entries_;  // first entry of each group, and the end
    std::unique_ptr<Segment> segment_ = std::make_unique<Segment>();
};

// Swaps byte j of word i with byte i of word j.
void transpose(uint64_t (&words)[8]) {
    constexpr uint64_t MASKS[] = {0x00ff00ff00ff00ff, 0x0000ffff0000ffff, 0x00000000ffffffff};
    for (int level = 0; level < 3; ++level)
        for (int i = 0, step = 1 << level; i < 8; ++i) {
            if (i & step) continue;
            uint64_t &low = words[i], &high = words[i + step];
            const uint64_t moved = (low >> 8 * step ^ high) & MASKS[level];
            high ^= moved;
            low ^= moved << 8 * step;
        }
}

template <class T>
size_t bytes_of(const std::vector<T>& values) {
    return values.capacity() * sizeof(T);
}

}  // namespace

void Segment::gather(const uint32_t* rows, size_t count, uint8_t* blocks) const {
    constexpr size_t LANES = 8;
    for (size_t i = 0; i < count; i += LANES) {
        const size_t lanes = std::min(LANES, count - i);
        uint8_t* place = blocks + i / BLOCK * width() * BLOCK + i % BLOCK;
        for (size_t from = 0; from < width(); from += LANES) {
            uint64_t codes[LANES] = {};
            for (size_t lane = 0; lane < lanes; ++lane)
                std::memcpy(&codes[lane], code_of(rows[i + lane]) + from, LANES);
            transpose(codes);
            for (size_t p = from; p < std::min(width(), from + LANES); ++p)
                std::memcpy(place + p * BLOCK, &codes[p - from], LANES);
        }
    }
}

size_t Segment::bytes() const {
    return blocks.bytes() + rows.bytes() + starts.bytes() + by_row.bytes() +
           bytes_of(group_of) + bytes_of(prefixes) + bytes_of(groups) + bytes_of(nodes);
}

Segment* build_segment(const uint8_t* packed, const uint32_t* rows, size_t count, int M,
                       bool find_rows) {
    return Builder(packed, rows, count, M, find_rows).build().release();
}

}  // namespace gpq
