#include "network.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <limits>
#include <system_error>
#include <thread>

namespace gpq {
namespace {

// Pictures that one thread takes through all steps: so many, or as few as half of them where there
// are threads for it. Each share reads all weights once.
constexpr int SHARE = 8;

// Of one call, for whoever has time.
struct Shares {
    explicit Shares(int count) : count(count) {}

    void end(bool good) {
        const std::lock_guard<std::mutex> lock(mutex);
        failed = failed || !good;
        if (++ended == count) all_ended.notify_one();
    }
    // Whether all were good, once they have ended.
    bool wait() {
        std::unique_lock<std::mutex> lock(mutex);
        all_ended.wait(lock, [this] { return ended == count; });
        return !failed;
    }

    const int count;
    std::atomic<int> next{0};
    std::mutex mutex;
    std::condition_variable all_ended;
    int ended = 0;
    bool failed = false;
};

void copy_pictures(const float* pictures, int count, int channels, const Map& map, float* to) {
    const size_t line = size_t(map.stride()) * map.channels;
    for (int picture = 0; picture < count; ++picture, to += map.size())
        for (int r = 0; r < map.side; ++r)
            for (int q = 0; q < map.side; ++q, pictures += channels)
                std::copy_n(pictures, channels,
                            to + (r + 1) * line + size_t(q + 1) * map.channels);
}

void halve(const Map& map, const float* from, const Map& half, float* to, int count) {
    const size_t line = size_t(map.stride()) * map.channels;
    const size_t half_line = size_t(half.stride()) * half.channels;
    for (int picture = 0; picture < count; ++picture, from += map.size(), to += half.size())
        for (int r = 0; r < half.side; ++r)
            for (int q = 0; q < half.side; ++q) {
                const float* x = from + (2 * r + 1) * line + size_t(2 * q + 1) * map.channels;
                float* y = to + (r + 1) * half_line + size_t(q + 1) * half.channels;
                for (int c = 0; c < map.channels; ++c)
                    y[c] = std::max(std::max(x[c], x[map.channels + c]),
                                    std::max(x[line + c], x[line + map.channels + c]));
            }
}

// The mean of each channel, or its largest.
void pool(const Map& map, const float* from, bool mean, float* features, int width, int count) {
    const size_t line = size_t(map.stride()) * map.channels;
    for (int picture = 0; picture < count; ++picture, from += map.size(), features += width) {
        std::fill_n(features, map.channels, mean ? 0.f : -std::numeric_limits<float>::infinity());
        for (int r = 0; r < map.side; ++r)
            for (int q = 0; q < map.side; ++q) {
                const float* x = from + (r + 1) * line + size_t(q + 1) * map.channels;
                for (int c = 0; c < map.channels; ++c)
                    features[c] = mean ? features[c] + x[c] : std::max(features[c], x[c]);
            }
        if (mean)
            for (int c = 0; c < map.channels; ++c) features[c] /= float(map.side * map.side);
    }
}

}  // namespace

Network::Network(const Map* maps, size_t map_count, const Step* steps, size_t step_count,
                 int channels, const Last& last, Functions functions)
    : maps_(maps, maps + map_count),
      steps_(steps, steps + step_count),
      channels_(channels),
      last_(last),
      functions_(functions) {
    for (const Map& map : maps_) most_channels_ = std::max(most_channels_, map.channels);
}

std::unique_ptr<Network::Room> Network::take_room() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!rooms_.empty()) {
            std::unique_ptr<Room> room = std::move(rooms_.back());
            rooms_.pop_back();
            return room;
        }
    }
    auto room = std::make_unique<Room>();
    for (const Map& map : maps_) room->maps.emplace_back(SHARE * map.size());
    for (Buffer<float>* points : {&room->read, &room->made})
        *points = Buffer<float>(size_t(POINTS) * TOGETHER * most_channels_);
    room->features = Buffer<float>(size_t(SHARE) * last_.features);
    room->out = Buffer<float>(size_t(SHARE) * PANEL);
    return room;
}

void Network::give_back(std::unique_ptr<Room> room) {
    const std::lock_guard<std::mutex> lock(mutex_);
    rooms_.push_back(std::move(room));
}

void Network::run(const float* pictures, int count, float* out, Room& room) const {
    copy_pictures(pictures, count, channels_, maps_[0], room.maps[0].data());
    for (const Step& step : steps_) {
        const Map& map = maps_[step.from];
        const float* from = room.maps[step.from].data();
        switch (step.kind) {
            case CONVOLVE:
                functions_.convolve(step, map, maps_[step.to], from,
                                    step.plus < 0 ? nullptr : room.maps[step.plus].data(),
                                    room.maps[step.to].data(), count,
                                    {room.read.data(), room.made.data()});
                break;
            case HALVE:
                halve(map, from, maps_[step.to], room.maps[step.to].data(), count);
                break;
            default:
                pool(map, from, step.kind == MEAN, room.features.data() + step.to, last_.features,
                     count);
        }
    }
    for (int first = 0; first < last_.made; first += PANEL) {
        functions_.multiply(count, room.features.data(), last_.features,
                            last_.weights + size_t(first) * last_.features, room.out.data(), PANEL);
        const int made = std::min(PANEL, last_.made - first);
        for (int picture = 0; picture < count; ++picture)
            for (int i = 0; i < made; ++i)
                out[size_t(picture) * last_.made + first + i] =
                    room.out[picture * PANEL + i] + last_.bias[first + i];
    }
}

// Nobody waits for a helper that has not begun, as it may not where the processors are busy.
void Network::run(const float* pictures, int count, float* out, int threads) {
    const int share =
        count <= SHARE ? SHARE : std::clamp((count + threads - 1) / threads, SHARE / 2, SHARE);
    const auto shares = std::make_shared<Shares>((count + share - 1) / share);
    const size_t picture = size_t(maps_[0].side) * maps_[0].side * channels_;
    const auto work = [=] {
        for (int i; (i = shares->next++) < shares->count;) {
            const int first = i * share;
            bool good = true;
            try {
                auto room = take_room();
                run(pictures + first * picture, std::min(share, count - first),
                    out + size_t(first) * last_.made, *room);
                give_back(std::move(room));
            } catch (...) {  // std::bad_alloc
                good = false;
            }
            shares->end(good);
        }
    };
    try {
        for (int i = 1; i < std::min(threads, shares->count); ++i) std::thread(work).detach();
    } catch (const std::system_error&) {  // no more threads: those there are do it all
    }
    work();
    if (!shares->wait()) throw std::bad_alloc();
}

}  // namespace gpq
