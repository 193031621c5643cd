// Matrix products in every format of numbers that a device has: exact on whole numbers, timed on random ones.
#include "../gemm.h"

namespace {

using namespace gt;

constexpr Shape kTile{64, 64, 16};
constexpr GemmKernel kPortable[] = {
    {"fp32", "gt_gemm_fp32", Number::kFp32, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"fp16", "gt_gemm_fp16", Number::kFp16, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"bf16", "gt_gemm_bf16", Number::kBf16, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"int8", "gt_gemm_int8", Number::kInt8, Sum::kInt32, Engine::kVector, kTile, true, 256, 0},
    {"fp8", "gt_gemm_fp8", Number::kFp8, Sum::kFp32, Engine::kVector, kTile, true, 256, 0},
    {"fp64", "gt_gemm_fp64", Number::kFp64, Sum::kFp64, Engine::kVector, kTile, true, 256, 0},
};

void gemm(Context &context) {
    context.open_device();
    const Properties properties = context.backend.properties();
    MatrixData data(context);
    const Handle module = context.module("gemm");
    const double each = context.options.budget / 6;
    for (const GemmKernel &kernel : kPortable) {
        if (kernel.in == Number::kFp64 && !properties.fp64) {
            context.skipped(kernel.name, "the device has no fp64");
            continue;
        }
        measure(context, data, *kernel_multiplier(context, module, kernel), each);
        if (!context.first_failure().empty()) return;
    }
    data.check();
}

GT_TEST("gemm", gemm);

}  // namespace
