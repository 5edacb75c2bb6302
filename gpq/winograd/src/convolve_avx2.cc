#if defined(__x86_64__)

#define WITH __attribute__((target("avx2,fma")))
#define WIDTH 8
#define ROWS 6
#define COLUMNS 2
#include "convolve.h"

namespace gpq {

Functions functions_avx2() {
    const bool there = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return there ? Functions{convolve, multiply_panel} : Functions{};
}

}  // namespace gpq

#else

#include "network.h"

namespace gpq {
Functions functions_avx2() { return {}; }
}  // namespace gpq

#endif
