// rocBLAS over the simulated GPU, with the true ABI: rocblas_gemm_ex and what it needs. GT_FAKE_FAULT names what
// is wrong with it.
#include "../host/blas_abi.h"
#include "sim_blas.h"

using namespace gt_sim;
using gt::Number;

namespace {

/// What is computed of these types; false: nothing.
bool supported(int in, int out, int compute, Product *product) {
    using namespace rocblas;
    if (compute != out) return false;
    if (in == kI8 && out == kI32) return product->in = product->sum = Number::kInt8, true;
    if (in == kF64 && out == kF64) return product->in = product->sum = Number::kFp64, true;
    product->sum = Number::kFp32;
    if (out != kF32) return false;
    if (in == kBf16) return product->in = Number::kBf16, true;
    if (in == kF16) return product->in = Number::kFp16, true;
    return product->in = Number::kFp32, in == kF32;
}

bool operation(int which) { return which == rocblas::kNone || which == rocblas::kTranspose; }

}  // namespace

extern "C" {

int rocblas_create_handle(void **handle) { return *handle = new BlasHandle, rocblas::kSuccess; }
int rocblas_destroy_handle(void *handle) { return delete static_cast<BlasHandle *>(handle), rocblas::kSuccess; }
int rocblas_set_stream(void *handle, void *stream) {
    if (!handle) return rocblas::kInvalidHandle;
    return static_cast<BlasHandle *>(handle)->stream = static_cast<Stream *>(stream), rocblas::kSuccess;
}
int rocblas_set_atomics_mode(void *handle, int mode) {
    if (!handle) return rocblas::kInvalidHandle;
    return mode == 0 || mode == 1 ? rocblas::kSuccess : rocblas::kInvalidValue;
}

int rocblas_gemm_ex(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha, const void *a,
                    int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, const void *c,
                    int c_type, int ldc, void *d, int d_type, int ldd, int compute, int algorithm,
                    std::int32_t solution, std::uint32_t flags) {
    if (!handle) return rocblas::kInvalidHandle;
    Product product{m, n, k, {a, trans_a == rocblas::kTranspose, lda}, {b, trans_b == rocblas::kTranspose, ldb},
                    {}, {}, d, ldd};
    if (!operation(trans_a) || !operation(trans_b)) return rocblas::kInvalidValue;
    const bool one_type = a_type == b_type && c_type == d_type && supported(a_type, d_type, compute, &product);
    if (!one_type || c != d || ldc != ldd || solution != 0 || flags != 0) return rocblas::kNotImplemented;
    if (algorithm != rocblas::kAlgorithmStandard || !plain(product.sum, alpha, beta)) return rocblas::kNotImplemented;
    if (!valid(product)) return rocblas::kInvalidValue;
    return multiply(static_cast<BlasHandle *>(handle)->stream, product) == kSuccess ? rocblas::kSuccess
                                                                                     : rocblas::kInvalidHandle;
}

}  // extern "C"
