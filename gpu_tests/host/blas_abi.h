// The part of cuBLAS (cublas_api.h 11.9.2, library_types.h of CUDA 12) and of rocBLAS (rocblas-types.h of ROCm 5.4,
// rocblas-functions.h) that the test of matrix products and the simulated libraries use. cuBLAS 11 to 13 and rocBLAS
// 2.24 to 5 have these functions and numbers alike. Not run against a real one yet.
#pragma once

#include <cstdint>

namespace cublas {

enum Status : int { kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kArchMismatch = 8, kNotSupported = 15 };
enum Operation : int { kOpN = 0, kOpT = 1 };
enum DataType : int { kR32F = 0, kR64F = 1, kR16F = 2, kR8I = 3, kR32I = 10, kR16BF = 14 };
enum Compute : int { kCompute32F = 68, kCompute64F = 70, kCompute32I = 72, kCompute32FFastTf32 = 77 };
constexpr int kGemmDefault = -1;

/// (symbol, parameters); all return cublasStatus_t. Matrices lie by columns.
#define GT_CUBLAS_FUNCTIONS(X)                                                                                       \
    X(cublasCreate_v2, (void **handle))                                                                              \
    X(cublasDestroy_v2, (void *handle))                                                                              \
    X(cublasSetStream_v2, (void *handle, void *stream))                                                              \
    X(cublasGemmEx, (void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha, const void *a,  \
                     int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type, \
                     int ldc, int compute, int algorithm))

}  // namespace cublas

namespace rocblas {

enum Status : int { kSuccess = 0, kInvalidHandle = 1, kNotImplemented = 2, kInvalidValue = 11 };
enum Operation : int { kNone = 111, kTranspose = 112 };
enum DataType : int { kF16 = 150, kF32 = 151, kF64 = 152, kI8 = 160, kI32 = 162, kBf16 = 168 };
constexpr int kAtomicsNotAllowed = 0, kAlgorithmStandard = 0;

/// (symbol, parameters); all return rocblas_status. D = alpha A B + beta C; D may be C.
#define GT_ROCBLAS_FUNCTIONS(X)                                                                                      \
    X(rocblas_create_handle, (void **handle))                                                                        \
    X(rocblas_destroy_handle, (void *handle))                                                                        \
    X(rocblas_set_stream, (void *handle, void *stream))                                                              \
    X(rocblas_set_atomics_mode, (void *handle, int mode))                                                            \
    X(rocblas_gemm_ex, (void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha,              \
                        const void *a, int a_type, int lda, const void *b, int b_type, int ldb, const void *beta,    \
                        const void *c, int c_type, int ldc, void *d, int d_type, int ldd, int compute,               \
                        int algorithm, std::int32_t solution, std::uint32_t flags))

}  // namespace rocblas
