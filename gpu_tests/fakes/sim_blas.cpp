#include "sim_blas.h"

#include <cstring>
#include <vector>

#include "faults.h"

namespace gt_sim {
namespace {

using gt::Number;
using gt_fake::is;

std::size_t bytes_of_sum(Number sum) { return sum == Number::kFp64 ? 8 : 4; }

/// How many elements a matrix spans whose columns have `rows` elements each.
std::size_t span(int rows, int columns, int stride) {
    return static_cast<std::size_t>(stride) * static_cast<std::size_t>(columns - 1) + static_cast<std::size_t>(rows);
}

bool ours(const void *memory, std::size_t bytes) {
    return where(reinterpret_cast<Address>(memory), bytes) == Where::kOurs;
}

bool valid(const Operand &x, int rows, int columns, std::size_t bytes) {
    if (x.transposed) std::swap(rows, columns);
    return x.stride >= rows && ours(x.memory, bytes * span(rows, columns, x.stride));
}

/// op(X), or its transpose, by rows and in fp64.
std::vector<double> by_rows(const Operand &x, int rows, int columns, Number number, bool flipped) {
    const std::size_t bytes = gt::bytes_of(number);
    std::vector<double> out(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns));
    const auto *memory = static_cast<const unsigned char *>(x.memory);
    std::size_t at = 0;
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
            const int row = flipped ? j : i, column = flipped ? i : j;
            const int low = x.transposed ? column : row, high = x.transposed ? row : column;
            std::uint64_t word = 0;
            std::memcpy(&word, memory + bytes * (static_cast<std::size_t>(high) * static_cast<std::size_t>(x.stride) +
                                                 static_cast<std::size_t>(low)), bytes);
            out[at++] = number == Number::kInt8 ? static_cast<std::int8_t>(word) : gt::decode(number, word);
        }
    }
    return out;
}

/// The nearest number of 11 binary digits.
double rounded(double value) {
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(fraction, 11)), exponent - 11);
}

void store(unsigned char *to, Number sum, double value) {
    const auto single = static_cast<float>(value);
    const auto whole = static_cast<std::int32_t>(value);
    if (sum == Number::kFp64) std::memcpy(to, &value, 8);
    else if (sum == Number::kInt8) std::memcpy(to, &whole, 4);
    else std::memcpy(to, &single, 4);
}

void compute(const Product &p) {
    const std::vector<double> a = by_rows(p.a, p.m, p.k, p.in, false);  // m x k
    const std::vector<double> b = by_rows(p.b, p.n, p.k, p.in, true);   // the transpose of op(B): n x k
    const bool coarse = is("blas_low_precision"), flipped = is("blas_transposed");
    auto *c = static_cast<unsigned char *>(p.c);
    const auto k = static_cast<std::size_t>(p.k);
    for (int j = 0; j < p.n; ++j) {
        const double *right = &b[static_cast<std::size_t>(j) * k];
        for (int i = 0; i < p.m; ++i) {
            const double *left = &a[static_cast<std::size_t>(i) * k];
            double sum = 0.0;
            if (coarse) {
                for (std::size_t l = 0; l < k; ++l) sum = rounded(sum + left[l] * right[l]);
            } else {
                for (std::size_t l = 0; l < k; ++l) sum += left[l] * right[l];
            }
            const std::size_t at = flipped ? static_cast<std::size_t>(i) * static_cast<std::size_t>(p.n) +
                                                 static_cast<std::size_t>(j)
                                           : static_cast<std::size_t>(j) * static_cast<std::size_t>(p.stride) +
                                                 static_cast<std::size_t>(i);
            store(c + at * bytes_of_sum(p.sum), p.sum, sum);
        }
    }
}

}  // namespace

bool valid(const Product &p) {
    if (p.m <= 0 || p.n <= 0 || p.k <= 0 || p.stride < p.m) return false;
    const std::size_t bytes = gt::bytes_of(p.in);
    return valid(p.a, p.m, p.k, bytes) && valid(p.b, p.k, p.n, bytes) &&
           ours(p.c, bytes_of_sum(p.sum) * span(p.m, p.n, p.stride));
}

Status multiply(Stream *stream, const Product &product) {
    return enqueue(stream, [product] { compute(product); });
}

bool plain(Number sum, const void *alpha, const void *beta) {
    double one = 0.0, zero = 1.0;
    if (sum == Number::kFp64) {
        std::memcpy(&one, alpha, 8), std::memcpy(&zero, beta, 8);
    } else if (sum == Number::kInt8) {
        std::int32_t whole[2];
        std::memcpy(&whole[0], alpha, 4), std::memcpy(&whole[1], beta, 4);
        one = whole[0], zero = whole[1];
    } else {
        float single[2];
        std::memcpy(&single[0], alpha, 4), std::memcpy(&single[1], beta, 4);
        one = static_cast<double>(single[0]), zero = static_cast<double>(single[1]);
    }
    return one == 1.0 && zero == 0.0;
}

}  // namespace gt_sim
