#include "filter.h"

#include <cstring>

namespace gpq {
namespace {

struct Named {
    const char* name;
    Filter (*find)();
};

// Fastest first.
constexpr Named FILTERS[] = {
    {"avx512vbmi", filter_avx512vbmi},
    {"avx512", filter_avx512},
    {"avx2", filter_avx2},
    {"neon", filter_neon},
    {"portable", filter_portable},
};

}  // namespace

Filter find_filter(const char* name) {
    for (const Named& named : FILTERS) {
        if (*name && std::strcmp(name, named.name) != 0) continue;
        if (Filter filter = named.find()) return filter;
    }
    return nullptr;
}

const char* name_of(Filter filter) {
    for (const Named& named : FILTERS)
        if (named.find() == filter) return named.name;
    return "";
}

}  // namespace gpq
