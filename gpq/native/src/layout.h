// Describes the fields of a structure to a caller that mirrors it in another language.
#pragma once

#include <cstddef>

namespace gpq {

// A layout is an array of fields in the order of their declaration. Its last element has no name;
// its size is that of the whole structure.
struct Field {
    const char* name;
    size_t offset;
    size_t size;
};

}  // namespace gpq

#define GPQ_FIELD(structure, field) {#field, offsetof(structure, field), sizeof(structure::field)}
#define GPQ_END(structure) {nullptr, 0, sizeof(structure)}
