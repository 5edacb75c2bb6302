// Winograd's convolution F(4×4, 3×3) (Lavin and Gray, CVPR 2016), for one set of instructions.
//
// Include it after defining WITH (the attribute of functions that use the instructions), WIDTH
// (floats of a register), ROWS and COLUMNS (registers of sums of a product: tiles, and vectors of
// channels).
#include <algorithm>

#include "network.h"

namespace gpq {
namespace {

typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef float Unaligned __attribute__((vector_size(4 * WIDTH), aligned(4)));

WITH inline Vector load(const float* values) { return *reinterpret_cast<const Unaligned*>(values); }
WITH inline void store(float* values, Vector v) { *reinterpret_cast<Unaligned*>(values) = v; }
WITH inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
WITH inline Vector relu(Vector v) { return Vector{} > v ? Vector{} : v; }  // of NaN: NaN

// Tiles R times channels of `read`, times weights, are tiles times COLUMNS vectors.
template <int R>
WITH void multiply(const float* read, int channels, const float* weights, float* made,
                   int apart) {
    Vector sums[R][COLUMNS] = {};
    for (int c = 0; c < channels; ++c, weights += PANEL) {
        Vector row[COLUMNS];
        for (int n = 0; n < COLUMNS; ++n) row[n] = load(weights + n * WIDTH);
        for (int r = 0; r < R; ++r)
            for (int n = 0; n < COLUMNS; ++n) sums[r][n] += read[r * channels + c] * row[n];
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < COLUMNS; ++n) store(made + r * apart + n * WIDTH, sums[r][n]);
}

template <int R = ROWS>
WITH void multiply_rows(int rows, const float* read, int channels, const float* weights,
                        float* made, int apart) {
    for (; rows >= R; rows -= R, read += R * channels, made += R * apart)
        multiply<R>(read, channels, weights, made, apart);
    if constexpr (R > 1)
        if (rows > 0) multiply_rows<R - 1>(rows, read, channels, weights, made, apart);
}

// Rows times a panel of weights.
WITH void multiply_panel(int rows, const float* read, int channels, const float* weights,
                         float* made, int apart) {
    for (int n = 0; n < PANEL; n += COLUMNS * WIDTH)
        multiply_rows(rows, read, channels, weights + n, made + n, apart);
}

// Bᵀ of six values, each `apart` from the next.
WITH inline void transform_read(const Vector* x, Vector* y, int apart) {
    const Vector x0 = x[0], x1 = x[apart], x2 = x[2 * apart];
    const Vector x3 = x[3 * apart], x4 = x[4 * apart], x5 = x[5 * apart];
    const Vector a = x4 - 4.f * x2, b = x3 - 4.f * x1, c = x4 - x2, d = 2.f * (x3 - x1);
    y[0] = 4.f * x0 - 5.f * x2 + x4;
    y[apart] = a + b;
    y[2 * apart] = a - b;
    y[3 * apart] = c + d;
    y[4 * apart] = c - d;
    y[5 * apart] = 4.f * x1 - 5.f * x3 + x5;
}

// Aᵀ of six values: four.
WITH inline void transform_made(const Vector* x, Vector* y, int apart) {
    const Vector a = x[apart] + x[2 * apart], b = x[apart] - x[2 * apart];
    const Vector c = x[3 * apart] + x[4 * apart], d = x[3 * apart] - x[4 * apart];
    y[0] = x[0] + a + c;
    y[apart] = b + 2.f * d;
    y[2 * apart] = a + 4.f * c;
    y[3 * apart] = b + 8.f * d + x[5 * apart];
}

// A tile of one picture.
struct Place {
    int picture, row, column;
};

inline Place place_of(int tile, int tiles) {
    return {tile / (tiles * tiles), tile / tiles % tiles, tile % tiles};
}

WITH inline void read_tile(const Map& map, const float* from, Place place, float* read) {
    const size_t line = size_t(map.stride()) * map.channels;
    from += place.picture * map.size() + place.row * TILE * line +
            size_t(place.column) * TILE * map.channels;
    for (int c = 0; c < map.channels; c += WIDTH) {
        Vector x[POINTS], y[POINTS];
        for (int r = 0; r < SPAN; ++r)
            for (int q = 0; q < SPAN; ++q)
                x[r * SPAN + q] = load(from + r * line + q * map.channels + c);
        for (int q = 0; q < SPAN; ++q) transform_read(x + q, y + q, SPAN);
        for (int r = 0; r < SPAN; ++r) transform_read(y + r * SPAN, x + r * SPAN, 1);
        for (int p = 0; p < POINTS; ++p)
            store(read + size_t(p) * TOGETHER * map.channels + c, x[p]);
    }
}

WITH inline void write_tile(const Step& step, const Map& map, const float* made, Place place,
                            const float* plus, float* to) {
    const int size = step.pool ? TILE / 2 : TILE;  // a side, of what is left of the tile
    const int first_row = place.row * size, first_column = place.column * size;
    const int rows = std::min(size, map.side - first_row);
    const int columns = std::min(size, map.side - first_column);
    const size_t line = size_t(map.stride()) * map.channels;
    const size_t at = place.picture * map.size() + (first_row + 1) * line +
                      size_t(first_column + 1) * map.channels;
    for (int c = 0; c < map.channels; c += WIDTH) {
        Vector x[POINTS], y[TILE * SPAN], z[TILE * SPAN];
        for (int p = 0; p < POINTS; ++p)
            x[p] = load(made + size_t(p) * TOGETHER * map.channels + c);
        for (int q = 0; q < SPAN; ++q) transform_made(x + q, y + q, SPAN);
        for (int r = 0; r < TILE; ++r) transform_made(y + r * SPAN, z + r * SPAN, 1);
        const Vector scale = load(step.scale + c), shift = load(step.shift + c);
        for (int r = 0; r < rows; ++r)
            for (int q = 0; q < columns; ++q) {
                const Vector* one = z + (step.pool ? 2 : 1) * (r * SPAN + q);
                Vector v = *one;
                if (step.pool)
                    v = larger(larger(v, one[1]), larger(one[SPAN], one[SPAN + 1]));
                v = relu(scale * v + shift);
                const size_t here = at + r * line + size_t(q) * map.channels + c;
                if (plus) v += load(plus + here);
                store(to + here, v);
            }
    }
}

WITH void convolve(const Step& step, const Map& from_map, const Map& to_map, const float* from,
                   const float* plus, float* to, int pictures, Scratch scratch) {
    const int tiles = from_map.tiles(), all = pictures * tiles * tiles;
    const int channels = from_map.channels, channels_made = to_map.channels;
    for (int first = 0; first < all; first += TOGETHER) {
        const int count = std::min(TOGETHER, all - first);
        for (int t = 0; t < count; ++t)
            read_tile(from_map, from, place_of(first + t, tiles), scratch.read + t * channels);
        const float* weights = step.weights;
        for (int p = 0; p < POINTS; ++p)
            for (int c = 0; c < channels_made; c += PANEL, weights += channels * PANEL)
                multiply_panel(count, scratch.read + size_t(p) * TOGETHER * channels, channels,
                               weights, scratch.made + size_t(p) * TOGETHER * channels_made + c,
                               channels_made);
        for (int t = 0; t < count; ++t)
            write_tile(step, to_map, scratch.made + t * channels_made, place_of(first + t, tiles),
                       plus, to);
    }
}

}  // namespace
}  // namespace gpq
