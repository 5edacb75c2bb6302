// A filter that looks up 64 sub-codes in a register by a byte shuffle.
#include "filter.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw")))

namespace gpq {
namespace {

TARGET inline __m512i low_looked_up(__m512i table, __m512i bytes) {
    return _mm512_shuffle_epi8(table, _mm512_and_si512(bytes, _mm512_set1_epi8(15)));
}

TARGET inline __m512i high_looked_up(__m512i table, __m512i bytes) {
    return low_looked_up(table, _mm512_srli_epi16(bytes, 4));
}

}  // namespace
}  // namespace gpq

#include "filter_512_bits.h"

namespace gpq {

Filter filter_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? choose
                                                                                   : nullptr;
}

}  // namespace gpq

#else

namespace gpq {
Filter filter_avx512() { return nullptr; }
}  // namespace gpq

#endif
