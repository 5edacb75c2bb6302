// What Python calls: plain C, 0 for success.
#include <cstring>

#include "layout.h"
#include "network.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

struct Named {
    const char* name;
    gpq::Functions (*find)();
};

// Fastest first.
constexpr Named KINDS[] = {{"avx512", gpq::functions_avx512}, {"avx2", gpq::functions_avx2}};

const Named* find(const char* name) {
    for (const Named& kind : KINDS)
        if ((!*name || std::strcmp(name, kind.name) == 0) && kind.find().convolve)
            return &kind;
    return nullptr;
}

constexpr gpq::Field STEP[] = {
    GPQ_FIELD(gpq::Step, kind),
    {"source", offsetof(gpq::Step, from), sizeof(gpq::Step::from)},  // from is reserved in Python
    GPQ_FIELD(gpq::Step, to),
    GPQ_FIELD(gpq::Step, plus),
    GPQ_FIELD(gpq::Step, pool),
    GPQ_FIELD(gpq::Step, weights),
    GPQ_FIELD(gpq::Step, scale),
    GPQ_FIELD(gpq::Step, shift),
    GPQ_END(gpq::Step),
};

}  // namespace

// The caller compares this layout with its own, so that it never uses another version's library.
EXPORTED const gpq::Field* gpq_step_layout() { return STEP; }

// The fastest there is here, or the one of that name; "" where there is none.
EXPORTED const char* gpq_instructions(const char* name) {
    const Named* kind = find(name);
    return kind ? kind->name : "";
}

// Null where there is no memory or no such instructions.
EXPORTED gpq::Network* gpq_network(const gpq::Map* maps, size_t map_count, const gpq::Step* steps,
                                   size_t step_count, int channels, const gpq::Last* last,
                                   const char* instructions) {
    const Named* kind = find(instructions);
    if (!kind) return nullptr;
    try {
        return new gpq::Network(maps, map_count, steps, step_count, channels, *last,
                                kind->find());
    } catch (...) {
        return nullptr;
    }
}

EXPORTED void gpq_network_free(gpq::Network* network) { delete network; }

// 1 where there is no memory.
EXPORTED int gpq_network_run(gpq::Network* network, const float* pictures, int count,
                             float* out, int threads) {
    try {
        network->run(pictures, count, out, threads);
    } catch (...) {
        return 1;
    }
    return 0;
}
