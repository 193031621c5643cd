// The formats of numbers that matrix products are made of: their bits, and the data that tests fill matrices with.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "data.h"

namespace gt {

/// The numeric values are those of `kind` in kernels/gemm.inc.
enum class Number : std::uint32_t {
    kFp64 = 0,
    kFp32 = 1,
    kTf32 = 2,  // fp32 whose low 13 bits are not used
    kFp16 = 3,
    kBf16 = 4,
    kInt8 = 5,
    kFp8 = 6,   // e4m3 of the OCP specification: bias 7, no infinity
    kFp8Fnuz = 7,  // e4m3 as gfx942 has it: bias 8, no negative zero
};
constexpr std::uint32_t kFillPoison = 8;  // not a number: what a fill kernel writes over an output

inline std::size_t bytes_of(Number number) {
    switch (number) {
        case Number::kFp64: return 8;
        case Number::kFp32:
        case Number::kTf32: return 4;
        case Number::kFp16:
        case Number::kBf16: return 2;
        default: return 1;
    }
}

/// The value of bits of this format. NaN and infinity do not occur in the data of the tests, except as bf16 and wider.
inline double decode(Number number, std::uint64_t word) {
    const auto w = static_cast<std::uint32_t>(word);
    const auto small = [&](std::uint32_t sign, std::uint32_t rest, int mantissa, int bias) {
        const std::uint32_t exponent = rest >> mantissa, fraction = rest & ((1u << mantissa) - 1);
        const double value = exponent
                                 ? std::ldexp(1.0 + std::ldexp(fraction, -mantissa), static_cast<int>(exponent) - bias)
                                 : std::ldexp(fraction, 1 - bias - mantissa);
        return sign ? -value : value;
    };
    float single;
    double wide;
    switch (number) {
        case Number::kFp64: std::memcpy(&wide, &word, sizeof wide); return wide;
        case Number::kFp32:
        case Number::kTf32: std::memcpy(&single, &w, sizeof single); return single;
        case Number::kBf16: {
            const std::uint32_t high = w << 16;
            std::memcpy(&single, &high, sizeof single);
            return single;
        }
        case Number::kFp16: return small(w & 0x8000u, w & 0x7FFFu, 10, 15);
        case Number::kInt8: return static_cast<std::int8_t>(w & 0xFFu);
        case Number::kFp8: return small(w & 0x80u, w & 0x7Fu, 3, 7);
        case Number::kFp8Fnuz: return small(w & 0x80u, w & 0x7Fu, 3, 8);
    }
    return 0.0;
}

/// The bits of a value, its low digits cut off and what is too small flushed to zero. kernels/gemm.inc has the same.
inline std::uint64_t encode(Number number, float value) {
    const std::uint32_t u = bits(value), sign = u >> 31, exponent = (u >> 23) & 0xFFu, fraction = u & 0x7FFFFFu;
    const auto narrow = [&](std::uint32_t mantissa, std::uint32_t bias, std::uint32_t sign_bit) -> std::uint64_t {
        if (exponent + bias <= 127u) return 0;
        return (sign << sign_bit) | ((exponent + bias - 127u) << mantissa) | (fraction >> (23u - mantissa));
    };
    switch (number) {
        case Number::kFp64: {
            if (exponent == 0) return 0;
            const std::uint64_t s = sign, e = exponent + 1023u - 127u, f = fraction;
            return (s << 63) | (e << 52) | (f << 29);
        }
        case Number::kFp32: return u;
        case Number::kTf32: return u & 0xFFFFE000u;
        case Number::kBf16: return u >> 16;
        case Number::kFp16: return narrow(10, 15, 15);
        case Number::kFp8: return narrow(3, 7, 7);
        case Number::kFp8Fnuz: return narrow(3, 8, 7);
        case Number::kInt8:
            return static_cast<std::uint8_t>(static_cast<std::int32_t>(value * 128.0f));  // the value is in [-1, 1)
    }
    return 0;
}

/// A value in [-1, 1) of 24 random bits, for place `i` of stream `salt`.
inline float entropy(std::uint32_t salt, std::uint32_t i) {
    return static_cast<float>(static_cast<std::int32_t>(mix(i ^ mix(salt)) >> 8) - 8388608) * (1.0f / 8388608.0f);
}

/// A whole number in {-2 … 2} for place `i` of stream `salt`.
inline int small_integer(std::uint32_t salt, std::uint32_t i) { return static_cast<int>(mix(i ^ mix(salt)) % 5u) - 2; }

/// The bits of a small whole number: int8 as such, all others as the floating-point number.
inline std::uint64_t encode_integer(Number number, int value) {
    if (number == Number::kInt8) return static_cast<std::uint8_t>(value);
    return encode(number, static_cast<float>(value));
}

}  // namespace gt
