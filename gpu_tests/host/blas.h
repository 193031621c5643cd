// Matrix products of the vendor's own BLAS, opened at run time: checked and timed as our kernels are.
#pragma once

#include <memory>
#include <vector>

#include "gemm.h"

namespace gt {

/// One format that the library multiplies.
struct BlasFormat {
    const char *name;        // the metric is gemm_<name>
    Number in;
    Sum out;
    Engine engine;           // what the library computes it on: the roof
    std::uint32_t multiple;  // of all sizes
    bool everywhere;         // each device has it; of others the library may say that it is not supported
};

/// The library, with a handle for the opened device and its main queue.
class Blas {
  public:
    virtual ~Blas() = default;
    virtual const std::vector<BlasFormat> &formats() const = 0;
    /// Put C = A * B^T into the main queue, all three row-major (see Shape), at device addresses. Throws Inapplicable
    /// where the library says that it has no such product, ApiFailure for anything else that it says.
    virtual void enqueue(const BlasFormat &format, const Shape &shape, const void *a, const void *b, void *c) = 0;
};

/// Throw Unavailable when the library is not installed.
std::unique_ptr<Blas> open_cublas(Context &context);
std::unique_ptr<Blas> open_rocblas(Context &context);

/// Measure every format of the BLAS that goes with the backend, or say why there is none.
void vendor_blas(Context &context, MatrixData &data, double seconds);

// --- for the libraries
/// The first of these libraries that can be opened. Over a fake driver nothing but the fake's own one can work.
void *open_blas(Context &context, const char *symbol, const std::vector<const char *> &usual, const char *what);

/// Alpha and beta, in the type that the product is computed in.
struct Factors {
    Factors(Sum sum, int value) : f(static_cast<float>(value)), d(value), i(value), sum(sum) {}
    const void *get() const {
        if (sum == Sum::kFp64) return &d;
        if (sum == Sum::kInt32) return &i;
        return &f;
    }
    float f;
    double d;
    std::int32_t i;
    Sum sum;
};

}  // namespace gt
