// The work of the test of queues: nodes and links whose words only the right order gives, and a gate that holds a queue
// shut.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "../data.h"

namespace gt {

constexpr std::uint32_t kSlotWords = 256;          // of one slot
constexpr std::uint32_t kStride = kSlotWords + 1;  // odd, so that slots begin everywhere; the word between is canary

/// What `rounds` turns of the kernels' recurrence make of x.
inline std::uint32_t rounds_of(std::uint32_t x, std::uint32_t rounds) {
    // x -> a x + c, composed with itself by squaring.
    std::uint32_t a = 1664525u, c = 1013904223u;
    for (; rounds; rounds >>= 1) {
        if (rounds & 1u) x = x * a + c;
        c = c * a + c;
        a *= a;
    }
    return x;
}

/// A call into the host that returns when it is told to: what follows it in its queue cannot have begun before.
class Gate {
  public:
    void open() {
        const std::lock_guard<std::mutex> hold(lock_);
        open_ = true;
        wake_.notify_all();
    }
    static void pass(void *self) {
        Gate &gate = *static_cast<Gate *>(self);
        std::unique_lock<std::mutex> hold(gate.lock_);
        gate.wake_.wait(hold, [&] { return gate.open_; });
    }

  private:
    std::mutex lock_;
    std::condition_variable wake_;
    bool open_ = false;
};

/// Places on the device, and what each must hold once everything enqueued has run in a permitted order.
class Slots {
  public:
    Slots(Backend &backend, std::size_t count) : array_(backend, count * kStride, 0), expected_(count * kStride) {
        clear();
    }

    void clear() {
        for (std::size_t i = 0; i < expected_.size(); ++i) expected_[i] = poison(static_cast<std::uint32_t>(i));
        array_.poison_all();
    }

    std::uint32_t at(std::size_t slot) const { return array_.first() + static_cast<std::uint32_t>(slot * kStride); }
    Handle buffer() const { return array_.buffer(); }

    std::vector<Arg> node(std::size_t out, std::size_t a, std::size_t b, std::uint32_t node, std::uint32_t rounds) {
        const std::uint32_t turned = rounds_of(node, rounds);
        for (std::uint32_t i = 0; i < kSlotWords; ++i) {
            expected_[out * kStride + i] = mix(expected_[a * kStride + i] + 3u * expected_[b * kStride + i] + turned);
        }
        return {Arg::u32(kSlotWords), Arg::mem(buffer()), Arg::u32(at(out)), Arg::u32(at(a)),
                Arg::u32(at(b)),  Arg::u32(node),     Arg::u32(rounds)};
    }

    std::vector<Arg> link(std::size_t slot, std::uint32_t link, std::uint32_t rounds) {
        const std::uint32_t turned = rounds_of(link, rounds);
        for (std::uint32_t i = 0; i < kSlotWords; ++i) {
            expected_[slot * kStride + i] = mix(expected_[slot * kStride + i] ^ turned);
        }
        return {Arg::u32(kSlotWords), Arg::mem(buffer()), Arg::u32(at(slot)), Arg::u32(link), Arg::u32(rounds)};
    }

    std::uint32_t expected(std::size_t slot) const { return expected_[slot * kStride]; }

    Guarded::Bad verify() {
        return array_.verify([&](std::uint32_t i) { return expected_[i]; });
    }

  private:
    Guarded array_;
    std::vector<std::uint32_t> expected_;
};

}  // namespace gt
