// rocBLAS, through rocblas_gemm_ex of librocblas.so.
#include <dlfcn.h>

#include "blas.h"
#include "blas_abi.h"

namespace gt {
namespace {

using namespace rocblas;

/// Matrix cores of CDNA take fp32 and fp64, too.
const std::vector<BlasFormat> kFormats = {
    {"bf16_blas", Number::kBf16, Sum::kFp32, Engine::kMatrix, 1, false},
    {"fp16_blas", Number::kFp16, Sum::kFp32, Engine::kMatrix, 1, false},
    {"int8_blas", Number::kInt8, Sum::kInt32, Engine::kMatrix, 4, false},
    {"fp32_blas", Number::kFp32, Sum::kFp32, Engine::kMatrix, 1, true},
    {"fp64_blas", Number::kFp64, Sum::kFp64, Engine::kMatrix, 1, true},
};

int type_of(Number number) {
    switch (number) {
        case Number::kFp64: return kF64;
        case Number::kFp16: return kF16;
        case Number::kBf16: return kBf16;
        case Number::kInt8: return kI8;
        default: return kF32;
    }
}

class Rocblas final : public Blas {
  public:
    explicit Rocblas(Context &context) {
        void *library = open_blas(context, "rocblas_create_handle",
                                  {"librocblas.so.5", "librocblas.so.4", "librocblas.so.0"}, "rocBLAS");
#define GT_REQUIRE(symbol, parameters)                                             \
    symbol = reinterpret_cast<int(*) parameters>(::dlsym(library, #symbol)); \
    if (!symbol) throw ApiFailure("rocBLAS lacks the symbol " #symbol);
        GT_ROCBLAS_FUNCTIONS(GT_REQUIRE)
#undef GT_REQUIRE
        void *const stream = context.backend.native_stream(nullptr);
        must(rocblas_create_handle(&handle_), "rocblas_create_handle");
        must(rocblas_set_stream(handle_, stream), "rocblas_set_stream");
        // Sums by atomic additions would not have the same bits twice.
        must(rocblas_set_atomics_mode(handle_, kAtomicsNotAllowed), "rocblas_set_atomics_mode");
    }
    ~Rocblas() override {
        if (handle_) rocblas_destroy_handle(handle_);
    }

    const std::vector<BlasFormat> &formats() const override { return kFormats; }

    void enqueue(const BlasFormat &format, const Shape &s, const void *a, const void *b, void *c) override {
        const int type = type_of(format.in);
        const int sum = format.out == Sum::kFp64 ? kF64 : format.out == Sum::kInt32 ? kI32 : kF32;
        const Factors one(format.out, 1), zero(format.out, 0);
        const int m = static_cast<int>(s.m), n = static_cast<int>(s.n), k = static_cast<int>(s.k);
        // What lies by rows is, by columns, its transpose: C^T (n x m) = B * A^T; B's memory, read by columns, is B^T.
        const int status = rocblas_gemm_ex(handle_, kTranspose, kNone, n, m, k, one.get(), b, type, k, a, type, k,
                                           zero.get(), c, sum, n, c, sum, n, sum, kAlgorithmStandard, 0, 0);
        if (status == kNotImplemented) {
            throw Inapplicable("rocBLAS says that it has no such product here (" + std::to_string(status) + ")");
        }
        must(status, "rocblas_gemm_ex");
    }

  private:
    static void must(int status, const char *what) {
        if (status != kSuccess) throw ApiFailure(std::string(what) + " failed with " + std::to_string(status));
    }

#define GT_MEMBER(symbol, parameters) int(*symbol) parameters = nullptr;
    GT_ROCBLAS_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
    void *handle_ = nullptr;
};

}  // namespace

std::unique_ptr<Blas> open_rocblas(Context &context) { return std::make_unique<Rocblas>(context); }

}  // namespace gt
