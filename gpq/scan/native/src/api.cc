// The functions that Python calls. They have the calling convention of C.
#include <cstring>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "filter.h"
#include "layout.h"
#include "search.h"
#include "segment.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Results of gpq_search; 0 is success.
constexpr int NO_MEMORY = 1;
constexpr int NOT_FINITE = 2;
constexpr int NO_SUCH_FILTER = 3;

constexpr gpq::Field REQUEST[] = {
    GPQ_FIELD(gpq::Request, segments),
    GPQ_FIELD(gpq::Request, segment_count),
    GPQ_FIELD(gpq::Request, tails),
    GPQ_FIELD(gpq::Request, tail_count),
    GPQ_FIELD(gpq::Request, M),
    GPQ_FIELD(gpq::Request, luts),
    GPQ_FIELD(gpq::Request, queries),
    GPQ_FIELD(gpq::Request, k),
    GPQ_FIELD(gpq::Request, part),
    GPQ_FIELD(gpq::Request, parts),
    GPQ_FIELD(gpq::Request, removed),
    GPQ_FIELD(gpq::Request, mask),
    GPQ_FIELD(gpq::Request, mask_rows),
    GPQ_FIELD(gpq::Request, mask_from),
    GPQ_FIELD(gpq::Request, has_after),
    GPQ_FIELD(gpq::Request, after_score),
    GPQ_FIELD(gpq::Request, after_row),
    GPQ_FIELD(gpq::Request, rows),
    GPQ_FIELD(gpq::Request, scores),
    GPQ_END(gpq::Request),
};

constexpr gpq::Field TAIL[] = {
    GPQ_FIELD(gpq::Tail, blocks),
    GPQ_FIELD(gpq::Tail, first_row),
    GPQ_FIELD(gpq::Tail, count),
    GPQ_END(gpq::Tail),
};

// The caller compares these layouts with its own, so that it never uses another version's kernel.
EXPORTED const gpq::Field* gpq_request_layout() { return REQUEST; }
EXPORTED const gpq::Field* gpq_tail_layout() { return TAIL; }

// Returns the name of the filter called name, or of the fastest if name is "". Returns "" if this
// build or the processor lacks it.
EXPORTED const char* gpq_filter(const char* name) {
    const gpq::Filter filter = gpq::find_filter(name);
    return filter ? gpq::name_of(filter) : "";
}

EXPORTED int gpq_search(const gpq::Request* request, const char* filter_name) {
    const gpq::Filter filter = gpq::find_filter(filter_name);
    if (!filter) return NO_SUCH_FILTER;
    try {
        if (!gpq::search(*request, filter)) return NOT_FINITE;
    } catch (...) {  // std::bad_alloc or std::length_error
        return NO_MEMORY;
    }
    return 0;
}

// Returns null if there is too little memory.
EXPORTED gpq::Segment* gpq_segment_build(const uint8_t* packed, const uint32_t* rows, size_t count,
                                         int M, int find_rows) {
    try {
        return gpq::build_segment(packed, rows, count, M, find_rows != 0);
    } catch (...) {
        return nullptr;
    }
}

EXPORTED void gpq_segment_free(gpq::Segment* segment) { delete segment; }

EXPORTED size_t gpq_segment_bytes(const gpq::Segment* segment) { return segment->bytes(); }

// Returns free memory to the system, because sorting needs much of it.
EXPORTED void gpq_trim() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

// Writes the codes (count, ceil(M/2)) of rows; the code of a row that the segment cannot find is 0.
EXPORTED void gpq_segment_codes_of(const gpq::Segment* segment, const uint32_t* rows, size_t count,
                                   uint8_t* packed) {
    const size_t width = segment->width(), found = segment->by_row.size() / width;
    std::memset(packed, 0, count * width);
    for (size_t i = 0; i < count; ++i, packed += width) {
        const size_t number = size_t(rows[i]) - segment->first_row;
        if (number < found) std::memcpy(packed, segment->code_of(rows[i]), width);
    }
}
