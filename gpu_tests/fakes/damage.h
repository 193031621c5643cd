// What several fake drivers do when they lie: data that is spoilt on its way, processes that stop.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>

#include "faults.h"

namespace gt_fake {

[[noreturn]] inline void hang() {
    while (true) ::pause();
}

[[noreturn]] inline void crash() {
    std::signal(SIGSEGV, SIG_DFL);  // a runtime's own handler could turn the crash into something else
    std::raise(SIGSEGV);
    ::_exit(99);
}

/// Spoil data that the host reads.
inline void corrupt(void *bytes, std::size_t size) {
    const std::size_t words = size / 4;
    auto *word = static_cast<std::uint32_t *>(bytes);
    const std::size_t middle = words / 2;
    if (words == 0) return;
    if (is("bitflip")) word[middle] ^= 1u << 3;
    if (is("swapped") && middle + 1 < words) std::swap(word[middle], word[middle + 1]);
    if (is("nan")) std::fill(word, word + words, 0x7FC00000u);
    if (is("displaced")) {
        // By 2 MiB where the buffer is large enough, as a wrong huge-page mapping would.
        const std::size_t by = words > (2u << 20) / 4 + 1 ? (2u << 20) / 4 : std::min<std::size_t>(64, words - 1);
        std::rotate(word, word + by, word + words);
    }
}

/// What a clock that lies makes of a time.
inline double told(double seconds) {
    if (is("timer_zero")) return 0.0;
    if (is("timer_1ns")) return 1e-9;
    if (is("timer_fast")) return seconds / 3;
    if (is("timer_slow")) return seconds * 5;  // a busy host doubles the time on the wall by itself
    return seconds;
}

}  // namespace gt_fake
