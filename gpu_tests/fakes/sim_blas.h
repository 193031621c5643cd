// Matrix products of the simulated vendors' BLAS: by columns, with any transposition, over the simulated memory.
#pragma once

#include "../host/numbers.h"
#include "sim.h"

namespace gt_sim {

/// op(X) of `rows` x `columns`; memory is X by columns, `stride` elements from one column to the next.
struct Operand {
    const void *memory;
    bool transposed;
    int stride;
};

/// C = op(A) * op(B), C being m x n by columns: `sum` is kFp32, kFp64, or kInt8 for sums in 32-bit integers.
struct Product {
    int m, n, k;
    Operand a, b;
    gt::Number in, sum;
    void *c;
    int stride;
};

/// Whether sizes and strides are such as BLAS allows, and all three matrices lie in memory that the device has.
bool valid(const Product &product);
Status multiply(Stream *stream, const Product &product);
/// Whether alpha is 1 and beta 0, in the type of the sum: nothing else is simulated.
bool plain(gt::Number sum, const void *alpha, const void *beta);

/// What the library's handle is.
struct BlasHandle {
    Stream *stream = nullptr;
};

}  // namespace gt_sim
