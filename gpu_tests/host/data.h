// The data and the oracle that tests share: every word is a hash of its index, so no two places look alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gt_api.h"

namespace gt {

/// A mixing of 32 bits in which every input bit reaches every output bit (multiply-xorshift).
inline std::uint32_t mix(std::uint32_t x) {
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    x ^= x >> 16;
    return x;
}

/// The lattice number of place `i` in stream `salt`: a multiple of 2^-21 in [0, 0.5).
///
/// Sums of two, and b + c/2, b + c/4, b + c/8 of two, need at most 24 bits: fp32 holds them exactly, fused or not,
/// so the oracle may ask for equal bits whatever the compiler did.
inline float lattice(std::uint32_t salt, std::uint32_t i) {
    return static_cast<float>(mix(i ^ mix(salt)) >> 12) * (1.0f / 2097152.0f);
}

inline std::uint32_t bits(float value) {
    std::uint32_t out;
    std::memcpy(&out, &value, sizeof out);
    return out;
}

constexpr std::size_t kCanaryWords = 1024;  // 4 KiB

/// Words that nothing may touch, and words that must all be overwritten (quiet NaNs, so that use of them spreads).
inline std::uint32_t canary(std::uint32_t i) { return mix(i ^ 0xC0FFEE11u); }
inline std::uint32_t poison(std::uint32_t i) { return 0x7FC00000u | (mix(i ^ 0x5EEDF00Du) >> 10); }

/// A device array of 32-bit words with canaries on both sides of its payload.
class Guarded {
  public:
    /// `offset` words of canary more than 4 KiB come before the payload, so that it begins at an odd place.
    Guarded(Backend &backend, std::size_t words, std::size_t offset)
        : backend_(backend),
          first_(kCanaryWords + offset),
          words_(words),
          host_(first_ + words + kCanaryWords),
          device_(backend.alloc(host_.size() * 4)) {}
    ~Guarded() { backend_.free(device_); }
    Guarded(const Guarded &) = delete;
    Guarded &operator=(const Guarded &) = delete;

    Handle buffer() const { return device_; }
    std::uint32_t first() const { return static_cast<std::uint32_t>(first_); }
    std::size_t words() const { return words_; }

    /// Fill the payload with poison, lay the canaries, and send all of it.
    void poison_all() {
        fill([](std::uint32_t i) { return poison(i); });
    }

    /// Fill the payload with `word(i)`, lay the canaries, and send all of it.
    template <class F>
    void fill(F word) {
        for (std::size_t i = 0; i < host_.size(); ++i) {
            const bool inside = i >= first_ && i < first_ + words_;
            host_[i] = inside ? word(static_cast<std::uint32_t>(i - first_)) : canary(static_cast<std::uint32_t>(i));
        }
        backend_.write(device_, host_.data(), host_.size() * 4);
    }

    struct Bad {
        std::uint64_t payload = 0, canaries = 0, first = 0;
    };

    /// Fetch everything and compare it with `word(i)` and with the canaries, bit by bit.
    template <class F>
    Bad verify(F word) {
        return verify_some(1, word);
    }

    /// The same, but of the payload only every `stride`-th word, from the first on.
    template <class F>
    Bad verify_some(std::size_t stride, F word) {
        Bad bad;
        bad.canaries = fetch();
        for (std::size_t i = 0; i < words_; i += stride) {
            if (host_[first_ + i] != word(static_cast<std::uint32_t>(i)) && bad.payload++ == 0) bad.first = i;
        }
        return bad;
    }

    /// Fetch everything, for `payload` to show, and return how many canaries are wrong.
    std::uint64_t fetch() {
        // A read that never happens must not find the right answer lying here.
        std::memset(host_.data(), 0xA5, host_.size() * 4);
        backend_.read(device_, host_.data(), host_.size() * 4);
        std::uint64_t bad = 0;
        for (std::size_t i = 0; i < host_.size(); ++i) {
            const bool inside = i >= first_ && i < first_ + words_;
            bad += !inside && host_[i] != canary(static_cast<std::uint32_t>(i));
        }
        return bad;
    }

    /// The words that were fetched last.
    const std::uint32_t *payload() const { return host_.data() + first_; }

  private:
    Backend &backend_;
    std::size_t first_, words_;
    std::vector<std::uint32_t> host_;
    Handle device_;
};

/// A device array of 32-bit words, too large to be kept on the host as well: kernels fill and check the payload, the
/// host the canaries on both sides of it. The payload begins at a multiple of 4 KiB.
class Fenced {
  public:
    Fenced(Backend &backend, std::size_t words)
        : backend_(backend), words_(words), device_(backend.alloc((words + 2 * kCanaryWords) * 4)) {
        std::vector<std::uint32_t> canaries(kCanaryWords);
        for (const std::size_t begin : {std::size_t{0}, kCanaryWords + words_}) {
            for (std::size_t i = 0; i < kCanaryWords; ++i) {
                canaries[i] = canary(static_cast<std::uint32_t>(begin + i));
            }
            backend_.write(device_, canaries.data(), kCanaryWords * 4, begin * 4);
        }
    }
    ~Fenced() { backend_.free(device_); }
    Fenced(const Fenced &) = delete;
    Fenced &operator=(const Fenced &) = delete;

    Handle buffer() const { return device_; }
    std::size_t words() const { return words_; }
    std::uint32_t first() const { return static_cast<std::uint32_t>(kCanaryWords); }
    /// The same in vectors of four words.
    std::uint32_t first_vector() const { return static_cast<std::uint32_t>(kCanaryWords / 4); }

    /// Fetch `count` words of the payload from word `begin` on. A read that never happens leaves no right word.
    void fetch(std::vector<std::uint32_t> &into, std::size_t begin, std::size_t count) const {
        into.assign(count, 0xA5A5A5A5u);
        backend_.read(device_, into.data(), count * 4, (kCanaryWords + begin) * 4);
    }

    /// How many words of the canaries are not what they were.
    std::uint64_t broken() const {
        std::uint64_t bad = 0;
        std::vector<std::uint32_t> words(kCanaryWords);
        for (const std::size_t begin : {std::size_t{0}, kCanaryWords + words_}) {
            words.assign(kCanaryWords, 0xA5A5A5A5u);
            backend_.read(device_, words.data(), kCanaryWords * 4, begin * 4);
            for (std::size_t i = 0; i < kCanaryWords; ++i) {
                bad += words[i] != canary(static_cast<std::uint32_t>(begin + i));
            }
        }
        return bad;
    }

  private:
    Backend &backend_;
    std::size_t words_;
    Handle device_;
};

}  // namespace gt
