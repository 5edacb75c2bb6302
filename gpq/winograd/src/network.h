// A network of 3×3 convolutions, as steps from one map to another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "buffer.h"

namespace gpq {

constexpr int TILE = 4;            // outputs a side that a tile makes: F(4×4, 3×3)
constexpr int SPAN = TILE + 2;     // inputs a side that it reads
constexpr int POINTS = SPAN * SPAN;
constexpr int LANES = 16;          // channels of a map are a multiple of them
constexpr int PANEL = 32;          // and those that a convolution makes, of these

// What there is between two steps, for each picture: (side, side, channels) float32 within zeros,
// a row and a column before and as many behind as whole tiles read.
struct Map {
    int32_t side;
    int32_t channels;

    int tiles() const { return (side + TILE - 1) / TILE; }  // a side
    int stride() const { return TILE * tiles() + 2; }       // pixels from one row to the next
    size_t size() const { return size_t(stride()) * stride() * channels; }
};

enum Kind : int32_t { CONVOLVE, HALVE, MEAN, MOST };

// The last layer: what it makes of features x is x · weights + bias.
struct Last {
    int32_t features;      // read
    int32_t made;
    const float* weights;  // (made / PANEL, rounded up; features, PANEL), zeros behind the last
    const float* bias;
};

struct Step {
    int32_t kind;
    int32_t from;  // a map
    int32_t to;    // a map; of MEAN and MOST the first of the features
    int32_t plus;  // of CONVOLVE: a map that is added at its end, or -1
    int32_t pool;  // of CONVOLVE: whether it is halved, by its largest of 2×2
    // Of CONVOLVE: what it makes of x is relu(scale · pool(x * weights) + shift) + plus.
    const float* weights;  // (POINTS, channels made / PANEL, channels read, PANEL), transformed
    const float* scale;    // of each channel made
    const float* shift;
};

// Room for what a tile's row of points is made of and becomes.
struct Scratch {
    float* read;
    float* made;
};
constexpr int TOGETHER = 12;  // tiles that share the reading of weights

// from, plus (or null) and to: of so many pictures, one behind the other.
using Convolve = void (*)(const Step& step, const Map& from_map, const Map& to_map,
                          const float* from, const float* plus, float* to, int pictures,
                          Scratch scratch);

// rows of `channels` values times (channels, PANEL) weights, to rows that are `apart`.
using Multiply = void (*)(int rows, const float* read, int channels, const float* weights,
                          float* made, int apart);

// What a set of instructions has; nothing where the compiler or the processor lacks it.
struct Functions {
    Convolve convolve = nullptr;
    Multiply multiply = nullptr;
};
Functions functions_avx512();
Functions functions_avx2();

// Safe to run from several threads.
class Network {
  public:
    // maps[0] is of the pictures, which have so many of its channels. Throws std::bad_alloc.
    Network(const Map* maps, size_t map_count, const Step* steps, size_t step_count, int channels,
            const Last& last, Functions functions);

    // pictures: at least one (side, side, channels); out: (count, last.made). Throws
    // std::bad_alloc.
    void run(const float* pictures, int count, float* out, int threads);

  private:
    // What one thread works in.
    struct Room {
        std::vector<Buffer<float>> maps;  // zeros are written at the start, and stay around them
        Buffer<float> read, made, features, out;
    };

    std::unique_ptr<Room> take_room();
    void give_back(std::unique_ptr<Room> room);
    void run(const float* pictures, int count, float* out, Room& room) const;

    std::vector<Map> maps_;
    std::vector<Step> steps_;
    int channels_, most_channels_ = 0;
    Last last_;
    Functions functions_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Room>> rooms_;  // that nobody works in
};

}  // namespace gpq
