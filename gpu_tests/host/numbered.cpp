#include "numbered.h"

#include <algorithm>

#include "data.h"

namespace gt {
namespace {

constexpr std::size_t kGroup = 256;
constexpr std::uint32_t kWordsAnItem = 64;
constexpr std::uint32_t kLooks = 64;  // words that the host looks at itself

struct Found {
    std::uint32_t looked, bad, first;
};

std::uint32_t items(std::uint32_t words) { return std::max(1u, words / kWordsAnItem); }

}  // namespace

std::uint64_t numbered_word(std::uint64_t number, std::uint32_t pattern) {
    if (pattern == 0) return number;
    if (pattern == 1) return ~number;
    number += 0x9E3779B97F4A7C15ull * pattern;
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ull;
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBull;
    return number ^ (number >> 31);
}

Numbered::Numbered(Context &context) : backend_(context.backend) {
    const Handle module = context.module("memory_walk");
    write_ = backend_.kernel(module, "gt_walk_write");
    check_ = backend_.kernel(module, "gt_walk_check");
    result_ = backend_.alloc(sizeof(Found));
}

Numbered::~Numbered() { backend_.free(result_); }

void Numbered::write(Handle buffer, std::uint32_t words, std::uint64_t base, std::uint32_t pattern) {
    const std::uint32_t n = items(words);
    backend_.launch(write_, n, kGroup,
                    {Arg::u32(n), Arg::mem(buffer), Arg::u32(words), Arg::u32(n), Arg::u64(base), Arg::u32(pattern)});
}

std::uint64_t Numbered::wrong(Handle buffer, std::uint32_t words, std::uint64_t base, std::uint32_t pattern) {
    const std::uint32_t n = items(words);
    Found found{0, 0, ~0u};
    backend_.write(result_, &found, sizeof found);
    backend_.launch(check_, n, kGroup,
                    {Arg::u32(n), Arg::mem(buffer), Arg::u32(words), Arg::u32(n), Arg::u64(base), Arg::u32(pattern),
                     Arg::mem(result_)});
    found = {~0u, ~0u, 0u};
    backend_.read(result_, &found, sizeof found);
    std::uint64_t bad = found.bad + (found.looked > words ? found.looked - words : words - found.looked);
    for (std::uint32_t look = 0; look < kLooks; ++look) {
        const std::uint32_t w = look == 0 ? 0 : look == 1 ? words - 1 : mix(words + look) % words;
        std::uint64_t word = ~numbered_word(base + w, pattern);
        backend_.read(buffer, &word, sizeof word, std::size_t{w} * 8);
        bad += word != numbered_word(base + w, pattern);
    }
    where_ = std::to_string(found.looked) + " of " + std::to_string(words) + " words looked at";
    if (found.first != ~0u) where_ += ", the first wrong one is " + std::to_string(found.first);
    return std::min<std::uint64_t>(bad, words);  // damaged counts are no numbers of words
}

}  // namespace gt
