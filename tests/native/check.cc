// Compares the kernel with a loop that scores and sorts all codes, on inputs made from bytes.
//
//     check SECONDS [SEED]    draws random bytes until the time is over
//
// -DGPQ_SMALL makes leaves, groups and tiles so small that little data fills many.
// -DLIBFUZZER makes a target for clang's -fsanitize=fuzzer instead. See the Makefile.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "search.h"

namespace {

// Makes numbers from bytes, and zeros when the bytes are used up.
struct Source {
    const uint8_t* data;
    size_t size;

    uint8_t byte() {
        if (!size) return 0;
        --size;
        return *data++;
    }
    uint32_t below(uint32_t limit) { return (byte() | byte() << 8 | byte() << 16) % limit; }
};

struct Scored {
    float score;
    uint32_t row;
};

bool better(const Scored& a, const Scored& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

float draw_value(Source& source, int kind) {
    const float value = float(int(source.byte()) - 128) / 128;
    switch (kind) {
        case 0: return value;
        case 1: return std::round(value * 2) / 7;         // many ties
        case 2: return value * 1e36f;                     // nearly too large
        case 3: return value * 1e-42f;                    // denormal
        case 4: return 0.25f;                             // all equal
        case 5: return std::ldexp(value, int(source.byte() % 100) - 50);
        case 6: return source.byte() < 16 ? 1.0f : value / 50;
        default: return source.byte() % 64 ? value : value < 0 ? NAN : value * INFINITY;
    }
}

void fail(const char* what, const char* filter, int M, size_t rows) {
    std::fprintf(stderr, "%s: filter %s, M = %d, %zu rows\n", what, filter, M, rows);
    std::abort();
}

void check(Source source) {
    const int M = 1 + int(source.below(source.byte() % 2 ? 13 : 64));
    const size_t width = size_t(M + 1) / 2;
    static const uint32_t SIZES[] = {0, 1, 63, 64, 65, 300, 3000, 20000};
    const uint32_t count = SIZES[source.byte() % 8];
    const int alphabet = source.byte() % 3 == 0 ? 2 : 16;
    const int clusters = source.byte() % 3 == 0 ? 1 + source.byte() % 5 : 0;
    std::minstd_rand random(source.below(1 << 24));

    std::vector<uint8_t> packed(count * width), centres(5 * width);
    const auto sub_codes = [&](size_t i) {
        const unsigned low = unsigned(random()) % alphabet;
        const unsigned high = int(2 * i + 1) < M ? unsigned(random()) % alphabet : 0;
        return uint8_t(low | high << 4);
    };
    for (size_t i = 0; i < centres.size(); ++i) centres[i] = sub_codes(i % width);
    for (size_t r = 0; r < count; ++r) {
        const size_t centre = clusters ? random() % clusters : 0;
        for (size_t i = 0; i < width; ++i)
            packed[r * width + i] =
                clusters && random() % 8 ? centres[centre * width + i] : sub_codes(i);
    }

    // Some rows are in segments, the rest in tails. Some are removed, before or after the segments
    // were built.
    std::vector<uint64_t> removed(count / 64 + 1, 0);
    const uint32_t one_in = 1 + source.byte() % 8;
    if (one_in > 1)
        for (uint32_t r = 0; r < count; ++r)
            if (random() % one_in == 0) removed[r / 64] |= uint64_t(1) << r % 64;
    const auto is_removed = [&](uint32_t r) { return removed[r / 64] >> r % 64 & 1; };
    const bool purge = source.byte() % 2;
    const uint32_t segment_count = source.byte() % 4;
    const uint32_t in_segments = segment_count ? count / (1 + source.byte() % 3) : 0;
    std::vector<std::unique_ptr<gpq::Segment>> segments;
    for (uint32_t s = 0; s < segment_count; ++s) {
        std::vector<uint32_t> rows;
        std::vector<uint8_t> codes;
        for (uint32_t r = in_segments / segment_count * s; r < in_segments / segment_count * (s + 1); ++r) {
            if (purge && is_removed(r)) continue;
            rows.push_back(r);
            codes.insert(codes.end(), &packed[r * width], &packed[r * width] + width);
        }
        segments.emplace_back(gpq::build_segment(codes.data(), rows.data(), rows.size(), M, true));
        for (size_t i = 0; i < rows.size(); ++i) {
            const gpq::Segment& segment = *segments.back();
            if (std::memcmp(segment.code_of(rows[i]), &codes[i * width], width)) fail("code", "", M, count);
        }
    }
    const uint32_t sorted = segment_count ? in_segments / segment_count * segment_count : 0;
    std::vector<std::vector<uint8_t>> blocks;
    std::vector<gpq::Tail> tails;
    for (uint32_t first = sorted; first < count;) {
        const uint32_t rows = std::min(count - first, 1 + source.below(5000));
        blocks.emplace_back((rows + 63) / 64 * 64 * width, 0xa5);
        for (uint32_t i = 0; i < rows; ++i)
            for (size_t p = 0; p < width; ++p)
                blocks.back()[i / 64 * 64 * width + p * 64 + i % 64] = packed[(first + i) * width + p];
        tails.push_back({nullptr, first, rows});
        first += rows;
    }
    for (size_t t = 0; t < tails.size(); ++t) tails[t].blocks = blocks[t].data();

    const size_t queries = 1 + source.byte() % 6;
    const int kind = source.byte() % 8;
    std::vector<float> luts(queries * M * 16);
    for (float& value : luts) value = draw_value(source, kind);
    if (kind != 4 && source.size == 0)
        for (float& value : luts) value = float(int(random() % 2001) - 1000) / 1000;
    const bool finite = std::all_of(luts.begin(), luts.end(), [](float v) { return std::isfinite(v); });
    static const size_t KS[] = {1, 2, 10, 100, 1000, 30000};
    const size_t k = KS[source.byte() % 6];
    std::vector<uint8_t> mask;
    const bool masked = source.byte() % 2;
    if (masked) {
        static const uint32_t DENSITIES[] = {1, 2, 15, 50, 3000};
        const uint32_t density = DENSITIES[source.byte() % 5];
        mask.resize(source.below(count + 1));
        for (uint8_t& byte : mask) byte = random() % density == 0;
    }

    std::vector<std::vector<Scored>> expected(queries);
    for (size_t q = 0; q < queries; ++q) {
        for (uint32_t r = 0; r < count; ++r) {
            if (is_removed(r) || (masked && !(r < mask.size() && mask[r]))) continue;
            float score = 0;
            for (int m = 0; m < M; ++m) {
                const uint8_t byte = packed[r * width + m / 2];
                score += luts[(q * M + m) * 16 + (m % 2 ? byte >> 4 : byte & 15)];
            }
            expected[q].push_back({score, r});
        }
        if (finite) std::sort(expected[q].begin(), expected[q].end(), better);
    }
    // A paging search has only the first query, and continues after one of its hits.
    const bool paging = source.byte() % 3 == 0 && finite && !expected[0].empty();
    const size_t asked = paging ? 1 : queries;
    Scored after = {0, 0};
    if (paging) {
        const size_t at = source.below(uint32_t(expected[0].size()));
        after = expected[0][at];
        expected[0].erase(expected[0].begin(), expected[0].begin() + at + 1);
    }

    std::vector<const gpq::Segment*> pointers;
    for (const auto& segment : segments) pointers.push_back(segment.get());
    std::vector<int64_t> rows(asked * k);
    std::vector<float> scores(asked * k);
    // Sometimes segments hold only eligible rows.
    const bool eligible_alone = masked && source.byte() % 2;
    for (uint32_t s = 0; eligible_alone && s < segment_count; ++s) {
        std::vector<uint32_t> rows_alone;
        std::vector<uint8_t> codes;
        const uint32_t first = sorted / segment_count * s, last = sorted / segment_count * (s + 1);
        for (uint32_t r = first; r < last; ++r) {
            if ((purge && is_removed(r)) || r >= mask.size() || !mask[r]) continue;
            rows_alone.push_back(r);
            codes.insert(codes.end(), &packed[r * width], &packed[r * width] + width);
        }
        segments[s].reset(
            gpq::build_segment(codes.data(), rows_alone.data(), rows_alone.size(), M, false));
        pointers[s] = segments[s].get();
    }
    gpq::Request request = {
        pointers.data(), pointers.size(), tails.data(), tails.size(), M, luts.data(), asked, k, 0, 1,
        one_in > 1 ? removed.data() : nullptr, masked ? (mask.empty() ? reinterpret_cast<const uint8_t*>("") : mask.data()) : nullptr,
        mask.size(), eligible_alone ? sorted : 0, paging, after.score, int64_t(after.row), rows.data(), scores.data()};
    request.parts = source.byte() % 3 ? 1 : 1 + source.byte() % 7;
    for (const char* name : {"avx512vbmi", "avx512", "avx2", "neon", "portable"}) {
        const gpq::Filter filter = gpq::find_filter(name);
        if (!filter) continue;
        std::vector<std::vector<Scored>> found(asked);
        for (request.part = 0; request.part < request.parts; ++request.part) {
            if (gpq::search(request, filter) != finite) fail("refused", name, M, count);
            if (!finite) return;
            for (size_t i = 0; i < asked * k; ++i) {
                if (rows[i] >= 0) found[i / k].push_back({scores[i], uint32_t(rows[i])});
                else if (scores[i] != -INFINITY) fail("missing", name, M, count);
            }
        }
        for (size_t q = 0; q < asked; ++q) {
            if (request.parts > 1) std::sort(found[q].begin(), found[q].end(), better);
            found[q].resize(std::min(found[q].size(), k));
            if (found[q].size() != std::min(expected[q].size(), k)) fail("count", name, M, count);
            for (size_t i = 0; i < found[q].size(); ++i) {
                const Scored &got = found[q][i], &right = expected[q][i];
                if (got.row != right.row) fail("row", name, M, count);
                if (std::memcmp(&got.score, &right.score, sizeof got.score)) fail("score", name, M, count);
            }
        }
    }
}

}  // namespace

#if defined(LIBFUZZER)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    check({data, size});
    return 0;
}

#else

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
    const unsigned seed = argc > 2 ? unsigned(std::atoi(argv[2])) : 0;
    const auto start = std::chrono::steady_clock::now();
    unsigned long checked = 0;
    while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
        std::mt19937 random(seed + unsigned(checked));
        std::vector<uint8_t> bytes(random() % 4 ? 40 + random() % 4000 : random() % 60);
        for (uint8_t& byte : bytes) byte = uint8_t(random());
        check({bytes.data(), bytes.size()});
        ++checked;
    }
    std::printf("%lu inputs, filters:", checked);
    for (const char* name : {"avx512vbmi", "avx512", "avx2", "neon", "portable"})
        if (gpq::find_filter(name)) std::printf(" %s", name);
    std::printf("\n");
    return 0;
}

#endif
