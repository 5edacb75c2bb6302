// A filter that looks up 64 sub-codes with vpermb, by the six low bits of each byte. The register
// holds the table four times, so that the upper two of these bits need not be masked.
#include "filter.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vbmi")))

namespace gpq {
namespace {

TARGET inline __m512i low_looked_up(__m512i table, __m512i bytes) {
    return _mm512_permutexvar_epi8(bytes, table);
}

TARGET inline __m512i high_looked_up(__m512i table, __m512i bytes) {
    return low_looked_up(table, _mm512_srli_epi16(bytes, 4));
}

}  // namespace
}  // namespace gpq

#include "filter_512_bits.h"

namespace gpq {

Filter filter_avx512vbmi() {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi") ? choose
                                                                                      : nullptr;
}

}  // namespace gpq

#else

namespace gpq {
Filter filter_avx512vbmi() { return nullptr; }
}  // namespace gpq

#endif
