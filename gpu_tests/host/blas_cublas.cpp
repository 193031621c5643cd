// cuBLAS, through cublasGemmEx of libcublas.so.
#include <dlfcn.h>

#include "blas.h"
#include "blas_abi.h"

namespace gt {
namespace {

using namespace cublas;

/// fp64 runs on tensor cores where they have it; fp32 does not, unless one asks for tf32.
const std::vector<BlasFormat> kFormats = {
    {"bf16_blas", Number::kBf16, Sum::kFp32, Engine::kMatrix, 1, false},
    {"fp16_blas", Number::kFp16, Sum::kFp32, Engine::kMatrix, 1, false},
    {"tf32_blas", Number::kTf32, Sum::kFp32, Engine::kMatrix, 1, false},
    {"int8_blas", Number::kInt8, Sum::kInt32, Engine::kMatrix, 4, false},  // leading dimensions: multiples of 4
    {"fp32_blas", Number::kFp32, Sum::kFp32, Engine::kVector, 1, true},
    {"fp64_blas", Number::kFp64, Sum::kFp64, Engine::kMatrix, 1, true},
};

int type_of(Number number) {
    switch (number) {
        case Number::kFp64: return kR64F;
        case Number::kFp16: return kR16F;
        case Number::kBf16: return kR16BF;
        case Number::kInt8: return kR8I;
        default: return kR32F;  // tf32 lies in memory as fp32
    }
}

class Cublas final : public Blas {
  public:
    explicit Cublas(Context &context) {
        void *library = open_blas(context, "cublasCreate_v2", {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"},
                                  "cuBLAS");
#define GT_REQUIRE(symbol, parameters)                                             \
    symbol = reinterpret_cast<int(*) parameters>(::dlsym(library, #symbol)); \
    if (!symbol) throw ApiFailure("cuBLAS lacks the symbol " #symbol);
        GT_CUBLAS_FUNCTIONS(GT_REQUIRE)
#undef GT_REQUIRE
        void *const stream = context.backend.native_stream(nullptr);
        must(cublasCreate_v2(&handle_), "cublasCreate");
        must(cublasSetStream_v2(handle_, stream), "cublasSetStream");
    }
    ~Cublas() override {
        if (handle_) cublasDestroy_v2(handle_);
    }

    const std::vector<BlasFormat> &formats() const override { return kFormats; }

    void enqueue(const BlasFormat &format, const Shape &s, const void *a, const void *b, void *c) override {
        const int type = type_of(format.in);
        const int sum = format.out == Sum::kFp64 ? kR64F : format.out == Sum::kInt32 ? kR32I : kR32F;
        const int compute = format.out == Sum::kFp64          ? kCompute64F
                            : format.out == Sum::kInt32       ? kCompute32I
                            : format.in == Number::kTf32 ? kCompute32FFastTf32
                                                              : kCompute32F;
        const Factors one(format.out, 1), zero(format.out, 0);
        const int m = static_cast<int>(s.m), n = static_cast<int>(s.n), k = static_cast<int>(s.k);
        // What lies by rows is, by columns, its transpose: C^T (n x m) = B * A^T; B's memory, read by columns, is B^T.
        const int status = cublasGemmEx(handle_, kOpT, kOpN, n, m, k, one.get(), b, type, k, a, type, k, zero.get(), c,
                                        sum, n, compute, kGemmDefault);
        if (status == kNotSupported || status == kArchMismatch) {
            throw Inapplicable("cuBLAS says that it has no such product here (" + std::to_string(status) + ")");
        }
        must(status, "cublasGemmEx");
    }

  private:
    static void must(int status, const char *what) {
        if (status != kSuccess) throw ApiFailure(std::string(what) + " failed with " + std::to_string(status));
    }

#define GT_MEMBER(symbol, parameters) int(*symbol) parameters = nullptr;
    GT_CUBLAS_FUNCTIONS(GT_MEMBER)
#undef GT_MEMBER
    void *handle_ = nullptr;
};

}  // namespace

std::unique_ptr<Blas> open_cublas(Context &context) { return std::make_unique<Cublas>(context); }

}  // namespace gt
