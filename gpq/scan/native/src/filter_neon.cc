// A filter that handles a block in four parts of 16 codes.
#include "filter.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace gpq {
namespace {

// Returns one bit for each byte, which is 1 if the byte is 255.
inline uint64_t bits(const uint8x16_t within[4]) {
    static const uint8_t WEIGHTS[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t weights = vld1q_u8(WEIGHTS);
    const uint8x16_t a = vpaddq_u8(vandq_u8(within[0], weights), vandq_u8(within[1], weights));
    const uint8x16_t b = vpaddq_u8(vandq_u8(within[2], weights), vandq_u8(within[3], weights));
    const uint8x16_t c = vpaddq_u8(a, b);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(c, c)), 0);
}

size_t run(const uint8_t* blocks, size_t count, int planes, const Filtered& filtered) {
    const uint8x16_t nibble = vdupq_n_u8(15);
    const uint8x16_t cutoff = vdupq_n_u8(CUTOFF);
    size_t found = 0;
    for (size_t b = 0; b < count; ++b) {
        uint8x16_t sums[4];
        for (uint8x16_t& sum : sums) sum = vdupq_n_u8(uint8_t(filtered.base));
        for (int p = 0; p < planes; ++p, blocks += BLOCK) {
            const uint8x16_t even = vld1q_u8(filtered.tables + 32 * p);
            const uint8x16_t odd = vld1q_u8(filtered.tables + 32 * p + 16);
            for (int i = 0; i < 4; ++i) {
                const uint8x16_t bytes = vld1q_u8(blocks + 16 * i);
                sums[i] = vqaddq_u8(sums[i], vqtbl1q_u8(even, vandq_u8(bytes, nibble)));
                sums[i] = vqaddq_u8(sums[i], vqtbl1q_u8(odd, vshrq_n_u8(bytes, 4)));
            }
        }
        uint8x16_t within[4];
        for (int i = 0; i < 4; ++i) within[i] = vcleq_u8(sums[i], cutoff);
        filtered.survivors[found] = {bits(within), uint32_t(b)};
        found += filtered.survivors[found].codes != 0;
    }
    return found;
}

// The same with wide sums.
size_t run_wide(const uint8_t* blocks, size_t count, int planes, const Filtered& filtered) {
    constexpr size_t ROW = 16 * COPIES;
    const uint8x16_t nibble = vdupq_n_u8(15);
    const uint16x8_t cutoff = vdupq_n_u16(filtered.cutoff);
    size_t found = 0;
    for (size_t b = 0; b < count; ++b) {
        uint16x8_t low[4], high[4];  // the sums of the first and of the last 8 codes of each part
        for (int i = 0; i < 4; ++i) low[i] = high[i] = vdupq_n_u16(filtered.base);
        for (int first = 0; first < planes; first += PAIR) {
            uint8x16_t sums[4];
            for (uint8x16_t& sum : sums) sum = vdupq_n_u8(0);
            for (int p = first; p < planes && p < first + PAIR; ++p, blocks += BLOCK) {
                const uint8x16_t even = vld1q_u8(filtered.tables + 2 * ROW * p);
                const uint8x16_t odd = vld1q_u8(filtered.tables + 2 * ROW * p + ROW);
                for (int i = 0; i < 4; ++i) {
                    const uint8x16_t bytes = vld1q_u8(blocks + 16 * i);
                    sums[i] = vaddq_u8(sums[i], vqtbl1q_u8(even, vandq_u8(bytes, nibble)));
                    sums[i] = vaddq_u8(sums[i], vqtbl1q_u8(odd, vshrq_n_u8(bytes, 4)));
                }
            }
            for (int i = 0; i < 4; ++i) {
                low[i] = vaddw_u8(low[i], vget_low_u8(sums[i]));
                high[i] = vaddw_u8(high[i], vget_high_u8(sums[i]));
            }
        }
        uint8x16_t within[4];
        for (int i = 0; i < 4; ++i)
            within[i] = vcombine_u8(vmovn_u16(vcleq_u16(low[i], cutoff)),
                                    vmovn_u16(vcleq_u16(high[i], cutoff)));
        filtered.survivors[found] = {bits(within), uint32_t(b)};
        found += filtered.survivors[found].codes != 0;
    }
    return found;
}

void filter(const uint8_t* blocks, size_t count, int planes, bool wide, Filtered* filtered,
            size_t queries) {
    for (Filtered* f = filtered; f < filtered + queries; ++f)
        f->found = (wide ? run_wide : run)(blocks, count, planes, *f);
}

}  // namespace

Filter filter_neon() { return filter; }

}  // namespace gpq

#else

namespace gpq {
Filter filter_neon() { return nullptr; }
}  // namespace gpq

#endif
