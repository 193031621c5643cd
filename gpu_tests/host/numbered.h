// Buffers whose every 64-bit word holds what its number says, written and checked by kernels (kernels/memory_walk.inc).
#pragma once

#include <cstdint>
#include <string>

#include "test.h"

namespace gt {

/// The word of a number; patterns from 2 on hash it. The same function as on the device.
std::uint64_t numbered_word(std::uint64_t number, std::uint32_t pattern);

class Numbered {
  public:
    /// Takes the device that the context has open.
    explicit Numbered(Context &context);
    ~Numbered();
    Numbered(const Numbered &) = delete;
    Numbered &operator=(const Numbered &) = delete;

    /// Let word w of the buffer, for all w below `words`, hold the word of the number base + w.
    void write(Handle buffer, std::uint32_t words, std::uint64_t base, std::uint32_t pattern);
    /// How many words are wrong: the device looks at every one, the host at the first, the last and some others.
    std::uint64_t wrong(Handle buffer, std::uint32_t words, std::uint64_t base, std::uint32_t pattern);
    /// Where the last check found the first wrong word, and how many words it looked at.
    const std::string &where() const { return where_; }

  private:
    Backend &backend_;
    Handle write_, check_, result_;
    std::string where_;
};

}  // namespace gt
