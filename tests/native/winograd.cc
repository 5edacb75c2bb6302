// The convolutions against a plain loop in double, on networks drawn at random.
//
//     winograd SECONDS [SEED]
//
// See the Makefile.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "network.h"

namespace {

using gpq::Map;
using gpq::PANEL;
using gpq::POINTS;
using gpq::SPAN;
using gpq::Step;

std::mt19937 generator;

int below(int limit) { return int(generator() % limit); }

std::vector<float> normal(size_t count) {
    std::normal_distribution<float> values;
    std::vector<float> drawn(count);
    for (float& value : drawn) value = values(generator);
    return drawn;
}

// (side, side, channels) of one picture.
struct Plain {
    int side, channels;
    std::vector<double> values = std::vector<double>(size_t(side) * side * channels);

    double& at(int r, int q, int c) { return values[(size_t(r) * side + q) * channels + c]; }
    double or_zero(int r, int q, int c) {
        return r < 0 || q < 0 || r >= side || q >= side ? 0 : at(r, q, c);
    }
};

// 3×3 kernels (channels made, channels read, 3, 3), and what is made of them.
struct Layer {
    int read, made;
    std::vector<float> kernels, transformed, scale, shift;

    Layer(int read, int real, int made) : read(read), made(made) {
        static const double G[SPAN][3] = {{1. / 4, 0, 0},
                                          {-1. / 6, -1. / 6, -1. / 6},
                                          {-1. / 6, 1. / 6, -1. / 6},
                                          {1. / 24, 1. / 12, 1. / 6},
                                          {1. / 24, -1. / 12, 1. / 6},
                                          {0, 0, 1}};
        kernels = normal(size_t(made) * read * 9);
        scale = normal(made);
        shift = normal(made);
        transformed.resize(size_t(POINTS) * made * read);
        for (int o = 0; o < made; ++o)
            for (int i = 0; i < read; ++i)
                for (int p = 0; p < POINTS; ++p) {
                    double sum = 0;
                    for (int a = 0; a < 9; ++a)
                        sum += G[p / SPAN][a / 3] * kernel(o, i, a) * G[p % SPAN][a % 3];
                    const size_t panel = size_t(p) * (made / PANEL) + o / PANEL;
                    transformed[(panel * read + i) * PANEL + o % PANEL] =
                        i < real ? float(sum) : 0;
                }
    }
    double kernel(int o, int i, int a) const { return kernels[(size_t(o) * read + i) * 9 + a]; }

    Plain run(Plain& x, bool pool, Plain* plus, int real) const {
        Plain whole{x.side, made}, out{pool ? x.side / 2 : x.side, made};
        for (int r = 0; r < x.side; ++r)
            for (int q = 0; q < x.side; ++q)
                for (int o = 0; o < made; ++o) {
                    double sum = 0;
                    for (int i = 0; i < real; ++i)
                        for (int a = 0; a < 9; ++a)
                            sum += kernel(o, i, a) * x.or_zero(r + a / 3 - 1, q + a % 3 - 1, i);
                    whole.at(r, q, o) = sum;
                }
        for (int r = 0; r < out.side; ++r)
            for (int q = 0; q < out.side; ++q)
                for (int o = 0; o < made; ++o) {
                    double most = pool ? -INFINITY : whole.at(r, q, o);
                    for (int a = 0; pool && a < 4; ++a)
                        most = std::fmax(most, whole.at(2 * r + a / 2, 2 * q + a % 2, o));
                    out.at(r, q, o) = std::fmax(0, most * scale[o] + shift[o]);
                    if (plus) out.at(r, q, o) += plus->at(r, q, o);
                }
        return out;
    }
};

void check(gpq::Functions functions, const char* name) {
    const int side = 2 + below(16), real = 1 + below(4), count = 1 + below(20);
    const int channels = PANEL * (1 + below(2)), threads = 1 + below(4);
    const bool pool = below(2), halve = below(2) && side / (pool ? 4 : 2) > 0;
    const Layer first(gpq::LANES, real, channels), second(channels, channels, channels);

    std::vector<Map> maps{{side, gpq::LANES}};
    std::vector<Step> steps;
    const auto add_map = [&](int map_side) {
        maps.push_back({map_side, channels});
        return int(maps.size()) - 1;
    };
    const auto convolved = [&](const Layer& layer, int from, int to, int plus, bool pooled) {
        steps.push_back({gpq::CONVOLVE, from, to, plus, pooled, layer.transformed.data(),
                         layer.scale.data(), layer.shift.data()});
    };
    int at = add_map(pool ? side / 2 : side);
    convolved(first, 0, at, -1, pool);
    if (halve) {
        const int half = add_map(maps[at].side / 2);
        steps.push_back({gpq::HALVE, at, half, -1, 0, nullptr, nullptr, nullptr});
        at = half;
    }
    const int last = add_map(maps[at].side);
    convolved(second, at, last, at, false);
    steps.push_back({gpq::MEAN, last, 0, -1, 0, nullptr, nullptr, nullptr});
    steps.push_back({gpq::MOST, last, channels, -1, 0, nullptr, nullptr, nullptr});

    // So that the last layer, too, is checked: it swaps the halves.
    std::vector<float> swapped(size_t(4) * channels * channels), bias(2 * channels, 1.f);
    for (int i = 0; i < 2 * channels; ++i) {
        const int made = (i + channels) % (2 * channels);
        swapped[(size_t(made / PANEL) * 2 * channels + i) * PANEL + made % PANEL] = 1;
    }
    gpq::Network network(maps.data(), maps.size(), steps.data(), steps.size(), real,
                         {2 * channels, 2 * channels, swapped.data(), bias.data()}, functions);
    const size_t picture = size_t(side) * side * real;
    for (int round = 0; round < 2; ++round) {
        const std::vector<float> pictures = normal(picture * count);
        std::vector<float> features(size_t(2) * channels * count, NAN);
        network.run(pictures.data(), count, features.data(), threads);
        for (int n = 0; n < count; ++n) {
            Plain x{side, real};
            x.values.assign(pictures.begin() + n * picture, pictures.begin() + (n + 1) * picture);
            Plain y = first.run(x, pool, nullptr, real);
            if (halve) {
                Plain half{y.side / 2, channels};
                for (int r = 0; r < half.side; ++r)
                    for (int q = 0; q < half.side; ++q)
                        for (int c = 0; c < channels; ++c) {
                            half.at(r, q, c) = -INFINITY;
                            for (int a = 0; a < 4; ++a)
                                half.at(r, q, c) = std::fmax(
                                    half.at(r, q, c), y.at(2 * r + a / 2, 2 * q + a % 2, c));
                        }
                y = half;
            }
            Plain z = second.run(y, false, &y, channels);
            double largest = 0;
            for (double value : z.values) largest = std::fmax(largest, std::fabs(value));
            for (int c = 0; c < channels; ++c) {
                double mean = 0, most = -INFINITY;
                for (int i = 0; i < z.side * z.side; ++i) {
                    mean += z.values[size_t(i) * channels + c] / (z.side * z.side);
                    most = std::fmax(most, z.values[size_t(i) * channels + c]);
                }
                const float* found = &features[size_t(2) * channels * n];
                if (std::fabs(found[channels + c] - 1 - mean) <= 1e-4 * (largest + 1) &&
                    std::fabs(found[c] - 1 - most) <= 1e-4 * (largest + 1))
                    continue;
                std::fprintf(stderr, "%s, side %d, pool %d, halve %d: channel %d is %g and %g, "
                             "not %g and %g\n", name, side, pool, halve, c, double(found[channels + c]) - 1,
                             double(found[c]) - 1, mean, most);
                std::abort();
            }
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
    generator.seed(argc > 2 ? std::atoi(argv[2]) : std::random_device()());
    const auto begin = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    int checked = 0;
    const struct {
        gpq::Functions functions;
        const char* name;
    } kinds[] = {{gpq::functions_avx512(), "avx512"}, {gpq::functions_avx2(), "avx2"}};
    while (elapsed() < seconds) {
        const int before = checked;
        for (const auto& [functions, name] : kinds)
            if (functions.convolve) {
                check(functions, name);
                ++checked;
            }
        if (checked == before) break;
    }
    std::printf("%d networks as a plain loop has them\n", checked);
    return checked ? 0 : 1;
}
