// cuBLAS over the simulated GPU, with the true ABI: cublasGemmEx and what it needs. GT_FAKE_FAULT names what
// is wrong with it.
#include "../host/blas_abi.h"
#include "sim_blas.h"

using namespace gt_sim;
using gt::Number;

namespace {

/// What is computed of these types, as the table of cublasGemmEx has it; false: nothing.
bool supported(int in, int out, int compute, Product *product) {
    using namespace cublas;
    if (compute == kCompute32I && in == kR8I && out == kR32I) {
        return product->in = product->sum = Number::kInt8, true;
    }
    if (compute == kCompute64F && in == kR64F && out == kR64F) {
        return product->in = product->sum = Number::kFp64, true;
    }
    if ((compute != kCompute32F && compute != kCompute32FFastTf32) || out != kR32F) return false;
    product->sum = Number::kFp32;
    if (in == kR16BF) return product->in = Number::kBf16, true;
    if (in == kR16F) return product->in = Number::kFp16, true;
    return product->in = Number::kFp32, in == kR32F;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void **handle) {
    if (!in_use()) return cublas::kNotInitialized;
    return *handle = new BlasHandle, cublas::kSuccess;
}
int cublasDestroy_v2(void *handle) { return delete static_cast<BlasHandle *>(handle), cublas::kSuccess; }
int cublasSetStream_v2(void *handle, void *stream) {
    if (!handle) return cublas::kNotInitialized;
    return static_cast<BlasHandle *>(handle)->stream = static_cast<Stream *>(stream), cublas::kSuccess;
}

int cublasGemmEx(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha, const void *a,
                 int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type,
                 int ldc, int compute, int algorithm) {
    if (!handle) return cublas::kNotInitialized;
    Product product{m, n, k, {a, trans_a == cublas::kOpT, lda}, {b, trans_b == cublas::kOpT, ldb}, {}, {}, c, ldc};
    if (trans_a < 0 || trans_a > 1 || trans_b < 0 || trans_b > 1) return cublas::kInvalidValue;
    if (a_type != b_type || !supported(a_type, c_type, compute, &product)) return cublas::kNotSupported;
    const bool aligned = a_type != cublas::kR8I || (lda % 4 == 0 && ldb % 4 == 0);
    if (algorithm != cublas::kGemmDefault || !aligned || !plain(product.sum, alpha, beta)) return cublas::kNotSupported;
    if (!valid(product)) return cublas::kInvalidValue;
    return multiply(static_cast<BlasHandle *>(handle)->stream, product) == kSuccess ? cublas::kSuccess
                                                                                     : cublas::kNotInitialized;
}

}  // extern "C"
