#if defined(__x86_64__)

#define WITH __attribute__((target("avx512f")))
#define WIDTH 16
#define ROWS 12
#define COLUMNS 2
#include "convolve.h"

namespace gpq {

Functions functions_avx512() {
    const bool there = __builtin_cpu_supports("avx512f");
    return there ? Functions{convolve, multiply_panel} : Functions{};
}

}  // namespace gpq

#else

#include "network.h"

namespace gpq {
Functions functions_avx512() { return {}; }
}  // namespace gpq

#endif
